"""Sections of ``site.yaml``: where images, masks, outcomes and ECGs lie, and how they read."""

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from client.intake.walking import MAX_FILES, MAX_STUDY_IMAGES
from protocol.yaml_files import Frozen
from shared_models.labels import CLASS_NAMES

__all__ = ["CovariateColumn", "Dates", "Ecg", "Images", "Masks", "Outcomes"]

LABEL_NAMES = tuple(CLASS_NAMES.values())


class Images(Frozen):
    """Where the studies lie.

    Attributes
    ----------
    format : {"dicom", "acdc", "nifti", "numpy"}
        ``nifti`` and ``numpy``: see `client.volumes`.
    group : str or None
        One diagnosis group of the ACDC archive.
    without_preamble : bool
        Read DICOM files that lack the 128 bytes and the word at their beginning. Off: nearly all of
        them are something else.
    overrides : str or None
        A table of what people decided about single series; see `client.overrides`.
    max_files, max_study_images : int
        Bounds of memory: more files below ``path`` are an error, a study of more images (frames of
        enhanced files counted) is not used.
    sorter : str or None
        Weights of a sorting network (``sort/final.safetensors`` of a study) that decides where the
        rules are unsure.
    """

    format: Literal["dicom", "acdc", "nifti", "numpy"]
    path: str = Field(min_length=1)
    group: Literal["NOR", "MINF", "DCM", "HCM", "RV"] | None = None
    without_preamble: bool = False
    overrides: str | None = Field(None, min_length=1)
    max_files: int = Field(MAX_FILES, ge=1)
    max_study_images: int = Field(MAX_STUDY_IMAGES, ge=1)
    sorter: str | None = Field(None, min_length=1)

    @model_validator(mode="after")
    def _group_is_acdc(self) -> Self:
        if self.group is not None and self.format != "acdc":
            raise ValueError("group stands only with format acdc; remove it")
        if self.format != "dicom" and (self.overrides or self.sorter):
            raise ValueError("overrides and sorter stand only with format dicom; remove them")
        return self


class Dates(Frozen):
    """Columns of dates, from which follow-up is reckoned at the hospital; no date is kept.

    Attributes
    ----------
    cmr : str
        Time zero.
    last_contact : str
        Until when the patient is known to be free of the event.
    event : str
        Date of the event; empty where there was none.
    order : {"ymd", "dmy", "mdy"}
        Of day, month and year as they are written, with four digits of the year.
    """

    cmr: str
    last_contact: str
    event: str
    order: Literal["ymd", "dmy", "mdy"] = "ymd"


class Outcomes(Frozen):
    """The table of follow-up and the names of its columns.

    Attributes
    ----------
    path : str
        CSV, or Parquet where the name ends so.
    months, event : str or None
        Follow-up from the CMR on and whether it ended with the event (1) or without (0).
    dates : Dates or None
        Instead of these two.
    start : str or None
        Months at which a patient came under observation, where that is not time zero (left
        truncation); below ``months``.
    causes : int
        Kinds of event the event column tells apart: 0 is censored, 1 the event of interest, 2 up to
        this number a competing one, which a study without competing risks takes as censored then.
    held_out : str or None
        1 for the patients this hospital keeps aside in every study, 0 for the others: a split that
        was fixed beforehand, instead of the study's own.
    """

    path: str = Field(min_length=1)
    patient: str
    months: str | None = None
    event: str | None = None
    dates: Dates | None = None
    start: str | None = None
    held_out: str | None = None
    causes: int = Field(1, ge=1, le=9)

    @model_validator(mode="after")
    def _times_or_dates(self) -> Self:
        if self.dates is None and (self.months is None or self.event is None):
            raise ValueError("give the columns months and event, or dates")
        if self.dates is not None and (self.months or self.event or self.start):
            raise ValueError("dates stand in place of months, event and start; remove one of them")
        if self.dates is not None and self.causes > 1:
            raise ValueError("dates tell one kind of event; give months and event for causes")
        return self


class CovariateColumn(Frozen):
    """A column of the outcome table and the unit its numbers are in.

    ``as is`` is the unit of a covariate that is the study's own and not in the data dictionary.
    """

    column: str
    unit: str


class Masks(Frozen):
    """Expert masks and the hospital's own label convention.

    Attributes
    ----------
    labels : mapping
        Of ``dicom_seg`` and ``nifti``: a segment number or a voxel value to LV, MYO or RV. Several
        values may mean one class (a hospital that draws papillary muscles apart).
    rois : mapping
        Of ``rtstruct``: the name of a region to LV, MYO, RV or EPI, the whole ventricle within its
        epicardium. Without RV the masks are not used for training.
    link : str or None
        Of ``sunnybrook``: a CSV of two columns, the patient number and the folder of contours; None
        where the folders are named by the patient number.
    """

    format: Literal["dicom_seg", "nifti", "rtstruct", "sunnybrook"]
    path: str = Field(min_length=1)
    labels: dict[int, Literal["LV", "MYO", "RV"]] = Field(default_factory=dict)
    rois: dict[str, Literal["LV", "MYO", "RV", "EPI"]] = Field(default_factory=dict)
    link: str | None = None

    @field_validator("labels")
    @classmethod
    def _complete(cls, labels: dict[int, str]) -> dict[int, str]:
        absent = [name for name in LABEL_NAMES if name not in labels.values()]
        if labels and absent:
            raise ValueError(f"{', '.join(absent)} has no value; map one to each of LV, MYO and RV")
        if labels and min(labels) < 1:
            raise ValueError("a label value is below 1; 0 is the background")
        return labels

    @model_validator(mode="after")
    def _fits_format(self) -> Self:
        if bool(self.labels) != (self.format in ("dicom_seg", "nifti")):
            raise ValueError("labels stand with format dicom_seg or nifti, and only there")
        if bool(self.rois) != (self.format == "rtstruct"):
            raise ValueError("rois stand with format rtstruct, and only there")
        classes = set(self.rois.values())
        if self.rois and not ("LV" in classes and classes & {"MYO", "EPI"}):
            raise ValueError("rois names no LV, or neither MYO nor EPI")
        if self.link is not None and self.format != "sunnybrook":
            raise ValueError("link stands only with format sunnybrook; remove it")
        return self


class Ecg(Frozen):
    """Where the patients' electrocardiograms lie: one folder, files named after the patient."""

    format: Literal["wfdb", "dicom"]
    path: str = Field(min_length=1)
