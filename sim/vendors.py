"""Scanner vendors as data: geometry, contrast, scaling, tags, and how series are cut.

Starting values after the vendors' public conformance statements and habits; calibrate, do not cite.
"""

from dataclasses import dataclass
from typing import Literal

__all__ = ["VENDORS", "Packaging", "VendorProfile"]

Packaging = Literal["series_per_slice", "series_all", "enhanced"]


@dataclass(frozen=True)
class VendorProfile:
    """One vendor.

    Attributes
    ----------
    model : dict
        ManufacturerModelName by field strength, T.
    matrix_px : int
        Usual side of the reconstructed matrix.
    thickness_mm, gap_mm : float
        Slice thickness and gap; centre-to-centre distance is their sum.
    tr_ms, te_ms, flip_deg : float
        Cine bSSFP repetition time, echo time, flip angle.
    enhanced_share : float
        Share of examinations exported as enhanced multi-frame objects.
    full_scale : float
        Typical stored value of bright tissue.
    scale_log_sd : float
        Log-sd of the scale between examinations.
    rescale : tuple of float or None
        Range of RescaleSlope, where the vendor writes one.
    noise : float
        Noise sd relative to blood in the cine.
    blur_px : float
        Width of the soft edge in pixels (reconstruction filter).
    """

    manufacturer: str
    model: dict[float, str]
    software: str
    cine_series: str
    lge_series: str
    sequence_name: str
    late_sequence_name: str
    scan_options: str
    matrix_px: int
    thickness_mm: float
    gap_mm: float
    tr_ms: float
    te_ms: float
    flip_deg: float
    packaging: Packaging
    enhanced_share: float
    shuffled: bool
    zipped: bool
    writes_slice_spacing: bool
    full_scale: float
    scale_log_sd: float
    rescale: tuple[float, float] | None
    noise: float
    blur_px: float


VENDORS: dict[str, VendorProfile] = {
    "siemens": VendorProfile(
        manufacturer="SIEMENS",
        model={1.5: "Aera", 3.0: "Skyra"},
        software="syngo MR E11",
        cine_series="cine_tf2d_sax",
        lge_series="LGE_psir_sax_MAG",
        sequence_name="*tfi2d1_14",
        late_sequence_name="*tfl2d1",
        scan_options="SFP",
        matrix_px=208,
        thickness_mm=8.0,
        gap_mm=2.0,
        tr_ms=2.9,
        te_ms=1.2,
        flip_deg=65.0,
        packaging="series_per_slice",
        enhanced_share=0.0,
        shuffled=False,
        zipped=False,
        writes_slice_spacing=False,
        full_scale=420.0,
        scale_log_sd=0.15,
        rescale=None,
        noise=0.035,
        blur_px=1.2,
    ),
    "philips": VendorProfile(
        manufacturer="Philips Medical Systems",
        model={1.5: "Achieva", 3.0: "Ingenia"},
        software="5.3.1",
        cine_series="sBTFE_BH SA",
        lge_series="IR_TFE_LGE SA",
        sequence_name="",
        late_sequence_name="",
        scan_options="CG",
        matrix_px=256,
        thickness_mm=8.0,
        gap_mm=2.0,
        tr_ms=3.0,
        te_ms=1.5,
        flip_deg=55.0,
        packaging="series_all",
        enhanced_share=0.3,
        shuffled=True,
        zipped=False,
        writes_slice_spacing=True,
        full_scale=1100.0,
        scale_log_sd=0.25,
        rescale=(0.6, 2.4),
        noise=0.045,
        blur_px=1.4,
    ),
    "ge": VendorProfile(
        manufacturer="GE MEDICAL SYSTEMS",
        model={1.5: "SIGNA Artist", 3.0: "SIGNA Premier"},
        software="29\\LX\\MR Software release:MR29.1",
        cine_series="FIESTA CINE SAX",
        lge_series="MDE SAX",
        sequence_name="",
        late_sequence_name="",
        scan_options="CARD_GATE\\FAST_GEMS",
        matrix_px=192,
        thickness_mm=8.0,
        gap_mm=2.0,
        tr_ms=3.5,
        te_ms=1.5,
        flip_deg=50.0,
        packaging="series_all",
        enhanced_share=0.0,
        shuffled=False,
        zipped=True,
        writes_slice_spacing=True,
        full_scale=900.0,
        scale_log_sd=0.5,
        rescale=None,
        noise=0.055,
        blur_px=1.5,
    ),
    "canon": VendorProfile(
        manufacturer="CANON_MEC",
        model={1.5: "Vantage Orian", 3.0: "Vantage Galan 3T"},
        software="V8.0",
        cine_series="TrueSSFP SAX cine",
        lge_series="FFE2D IR SAX",
        sequence_name="FFE_SSFP",
        late_sequence_name="FFE",
        scan_options="",
        matrix_px=224,
        thickness_mm=8.0,
        gap_mm=2.0,
        tr_ms=3.3,
        te_ms=1.6,
        flip_deg=55.0,
        packaging="enhanced",
        enhanced_share=1.0,
        shuffled=False,
        zipped=False,
        writes_slice_spacing=True,
        full_scale=4200.0,
        scale_log_sd=0.3,
        rescale=None,
        noise=0.05,
        blur_px=1.3,
    ),
}
