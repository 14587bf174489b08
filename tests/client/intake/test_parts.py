"""Every series sorted: phantoms against their own truth, real studies against their pictures."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from client.intake.frame import Frame
from client.intake.headers import read_header
from client.intake.overruling import Override
from client.intake.parts import UNSURE_BELOW, Part, sort_parts
from client.intake.sorting import choose
from sim.truth import SeriesTruth, num_right, read_series

VENDORS = ("siemens", "philips", "ge", "canon")
# By SeriesNumber, as the pictures show. Two descriptions are wrong: 16001 shows the left ventricle,
# the left atrium and the aorta but is called 4CH; 19001 shows the right heart and is called 2CH.
VIDA = dict.fromkeys((7001, 8001, 9001, 10001, 11001, 12001), "sax") | {
    14001: "4ch",
    16001: "3ch",
    17001: "2ch",
    19001: "2ch_rv",
    22001: "rvot",
}


def _blanked(studies: list[list[Frame]]) -> list[list[Frame]]:
    # Series description, protocol and sequence names are all the text that is ever read.
    return [[replace(frame, text="") for frame in study] for study in studies]


def _studies(root: Path, *, blank: bool = False) -> list[list[Frame]]:
    studies: dict[str, list[Frame]] = {}
    for path in sorted(root.rglob("*")):
        header = read_header(path) if path.is_file() else ()
        assert not isinstance(header, str), header
        for frame in header:
            studies.setdefault(frame.study_uid, []).append(frame)
    found = list(studies.values())
    return _blanked(found) if blank else found


@pytest.fixture(scope="module")
def phantoms(whole_examinations: Path) -> dict[str, list[list[Frame]]]:
    """The frames of every study of every vendor."""
    return {vendor: _studies(whole_examinations / vendor / "dicom") for vendor in VENDORS}


def _as_truth(parts: Iterable[Part]) -> list[SeriesTruth]:
    return [SeriesTruth(part.series_uid, part.sequence, part.view) for part in parts]


@pytest.mark.parametrize(("blank", "share"), [(False, 1.0), (True, 0.97)])
def test_phantom_examinations(
    whole_examinations: Path,
    phantoms: dict[str, list[list[Frame]]],
    blank: bool,
    share: float,
) -> None:
    right = total = 0
    for vendor in VENDORS:
        truth = read_series(whole_examinations, vendor)
        studies = _blanked(phantoms[vendor]) if blank else phantoms[vendor]
        found = [entry for study in studies for entry in _as_truth(sort_parts(study))]
        assert len(found) == len(truth), "every part of a mixed series is found once"
        right, total = right + num_right(found, truth), total + len(truth)
    assert total > 150 and right >= share * total


def test_mixed_series_are_split_and_the_order_of_files_is_irrelevant(
    phantoms: dict[str, list[list[Frame]]],
) -> None:
    study = _blanked(phantoms["ge"])[0]
    parts = sort_parts(study)
    together = Counter(part.series_uid for part in parts if part.number)
    assert sorted(together.values()) == [2, 2, 3, 4], "late 4CH, flow, survey, cines"
    order = np.random.default_rng(0).permutation(len(study))
    again = sort_parts([study[i] for i in order])
    assert [(p.series_uid, p.number, p.sequence, p.view, p.confidence) for p in again] == [
        (p.series_uid, p.number, p.sequence, p.view, p.confidence) for p in parts
    ]


@pytest.mark.parametrize("blank", [False, True])
def test_vida_and_sunnybrook(real_studies: Path, blank: bool) -> None:
    (vida,) = _studies(real_studies / "vida", blank=blank)
    found = {part.frames[0].series_number: part for part in sort_parts(vida)}
    assert {number: part.view for number, part in found.items()} == VIDA
    assert {part.sequence for part in found.values()} == {"cine"}
    assert min(part.confidence for part in found.values()) >= UNSURE_BELOW
    for name in ("SCD0000101", "SCD0000301", "SCD0000501"):
        (study,) = _studies(real_studies / name, blank=blank)
        assert [(p.sequence, p.view) for p in sort_parts(study)] == [("cine", "sax")]
    (survey,) = _studies(real_studies / "SCD0000301_localizers", blank=blank)
    planes = {(part.sequence, part.view) for part in sort_parts(survey)}
    assert planes == {("localizer", view) for view in ("axial", "coronal", "sagittal")}


def test_words_that_contradict_a_sure_geometry_only_warn(real_studies: Path) -> None:
    (vida,) = _studies(real_studies / "vida", blank=False)
    wrong = [p for p in sort_parts(vida) if p.frames[0].series_number == 16001]
    assert wrong[0].view == "3ch" and wrong[0].confidence == 0.75
    assert "the text says 4ch" in wrong[0].reason


def test_a_person_overrules_the_rule(phantoms: dict[str, list[list[Frame]]]) -> None:
    study = phantoms["philips"][0]
    parts = sort_parts(study)
    cine = next(p for p in parts if (p.sequence, p.view) == ("cine", "sax"))
    mixed = next(p for p in parts if p.number == 2)
    said = {
        (cine.series_uid, 0): Override(ignore=True),
        (mixed.series_uid, 2): Override(sequence="other"),
    }
    again = {(p.series_uid, p.number): p for p in sort_parts(study, said)}
    assert again[(mixed.series_uid, 2)].sequence == "other"
    assert (
        again[(mixed.series_uid, 2)].view == mixed.view
        and again[(mixed.series_uid, 2)].by == "person"
    )
    assert again[(mixed.series_uid, 1)].by == "rule", "only the part that was named"
    assert choose(parts).cine
    chosen = choose(list(again.values()))
    assert not chosen.cine and chosen.refused["set aside by a person"] == 1
