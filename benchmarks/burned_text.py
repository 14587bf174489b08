"""Burned-in text: what the detector finds in images without text, and with a name drawn in.

    python benchmarks/burned_text.py

Needs the real data beside the project (CONCORS_DATA). A false alarm is a study whose longest line
is above the default of ``quality.max_text_characters``.
"""

import os
import tarfile
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from client.burned_text import text_characters
from client.intake.headers import read_header
from client.intake.images import decode
from client.intake.numpy_file import open_npz
from client.intake.sorting import sort_study
from client.intake.stacks import plan_stack
from client.quality_limits import QualityLimits
from sim.config import PhantomConfig
from sim.hospitals import make_hospitals

DATA = Path(os.environ.get("CONCORS_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
ARCHIVES = {
    "Sunnybrook": (
        "sunnybrook/SCD0000101_contoured_frames.tar.xz",
        "sunnybrook/SCD0000301.tar.xz",
        "sunnybrook/SCD0000501.tar.xz",
    ),
    "Vida": ("siemens_vida_study/dicoms.tar.xz",),
}
VENDORS = ("siemens", "philips", "ge", "canon")
ACDC_MEMBERS = ("ed_lut", "ed_idx", "es_lut", "es_idx")


def dicom_stacks(root: Path) -> list[np.ndarray]:
    studies: dict[str, list] = {}
    for path in sorted(root.rglob("*")):
        header = read_header(path) if path.is_file() else "folder"
        if not isinstance(header, str):
            studies.setdefault(header[0].study_uid, []).extend(header)
    found = [sort_study(frames) for frames in studies.values()]
    return [decode(plan_stack(kind)) for f in found for kind in (f.cine, f.lge) if kind]


def acdc_stacks() -> list[np.ndarray]:
    stacks = []
    for path in sorted((DATA / "acdc" / "volumes").glob("*.npz")):
        file = open_npz(path, ACDC_MEMBERS)
        stacks.append(np.stack([file[f"{p}_lut"][file[f"{p}_idx"]] for p in ("ed", "es")]))
    return stacks


def written(stack: np.ndarray, column: int, row: int, size: int) -> np.ndarray:
    image = Image.new("L", stack.shape[:1:-1], 0)
    ImageDraw.Draw(image).text((column, row), "DOE JANE 1933", fill=255, font_size=size)
    share = np.asarray(image, np.float32) / 255
    return stack * (1 - share) + share * stack.max()


def report(name: str, stacks: list[np.ndarray]) -> None:
    limit = QualityLimits().max_text_characters
    clean = [text_characters(stack) for stack in stacks]
    drawn = [
        text_characters(written(stack, 4, row, size))
        for stack in stacks
        for row, size in ((3, 10), (stack.shape[2] - 18, 12))
    ]
    print(
        f"{name:10s} stacks {len(stacks):3d}  without text: longest line {max(clean)}, "
        f"false alarms {sum(n > limit for n in clean)}  with text: found "
        f"{sum(n > limit for n in drawn)} of {len(drawn)}",
        flush=True,
    )


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        for name, archives in ARCHIVES.items():
            for archive in archives:
                with tarfile.open(DATA / archive) as file:
                    file.extractall(out / name / Path(archive).stem, filter="data")
            report(name, dicom_stacks(out / name))
        report("ACDC", acdc_stacks())
        hospitals = [{"name": v, "num_patients": 3, "vendors": {v: 1}} for v in VENDORS]
        images = {"cine_frames": 5, "matrix_px": 128, "sublevels": 1}
        config = PhantomConfig.model_validate({"hospitals": hospitals, "images": images})
        make_hospitals(config, out / "phantom", seed=5)
        report("phantom", dicom_stacks(out / "phantom"))


if __name__ == "__main__":
    main()
