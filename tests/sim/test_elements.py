"""Encoded elements against pydicom's own encoding."""

import io

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from sim.elements import element, elements, sequence, to_bytes

VALUES = {
    "ImageType": ["ORIGINAL", "PRIMARY", "M"],
    "SOPInstanceUID": "2.25.123",
    "Rows": 128,
    "ImagePositionPatient": ["-1.5", "2", "3.25"],
    "InversionTimes": 319.5,
    "DimensionIndexValues": [1, 2, 3],
    "DimensionIndexPointer": 0x00209056,
    "PatientName": "PHANTOM^ONE",
    "InstanceNumber": 7,
    "AccessionNumber": "",
}


def _pydicom_bytes(dataset: Dataset) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_dataset(buffer, dataset)
    return buffer.getvalue()


@pytest.mark.parametrize("keyword", sorted(VALUES))
def test_each_value_representation(keyword: str) -> None:
    dataset = Dataset()
    setattr(dataset, keyword, VALUES[keyword])
    assert element(keyword, VALUES[keyword])[1] == _pydicom_bytes(dataset)


def test_order_of_tags_and_sequences() -> None:
    inner, outer = Dataset(), Dataset()
    inner.ImagePositionPatient = VALUES["ImagePositionPatient"]
    outer.PlanePositionSequence = [inner, inner]
    outer.Rows = 128
    position = elements({"ImagePositionPatient": VALUES["ImagePositionPatient"]})
    encoded = [sequence("PlanePositionSequence", [position, position]), element("Rows", 128)]
    assert to_bytes(encoded) == _pydicom_bytes(outer)
    assert to_bytes(reversed(encoded)) == to_bytes(encoded)
    read = dcmread(io.BytesIO(to_bytes(encoded)), force=True)
    assert read.Rows == 128


def test_unknown_keyword_is_an_error() -> None:
    with pytest.raises(KeyError, match="NoSuchKeyword"):
        element("NoSuchKeyword", 1)
