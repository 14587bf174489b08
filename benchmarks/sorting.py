"""How many series are sorted right by rule: phantoms of four vendors, and real studies.

    python benchmarks/sorting.py [--patients 10] [--seed 1]

Each line is a set of studies, with all tags and with every free-text tag blanked (series, study and
protocol description, names of the pulse sequence, comments: of these the intake reads only what
`Frame.text` holds, so an empty one is as if all were). The truth of a phantom is written by the
phantom; that of the real studies was read off the pictures.
"""

import argparse
import os
import tarfile
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

from client.imaging import read_frames
from client.intake.frame import Frame
from client.intake.parts import UNSURE_BELOW, sort_parts
from sim.config import PhantomConfig
from sim.hospitals import make_hospitals
from sim.truth import SeriesTruth, num_right, read_series

VENDORS = ("siemens", "philips", "ge", "canon")
DATA = Path(os.environ.get("CONCORS_DATA", "../shared/data"))
BODY = ("axial", "coronal", "sagittal")
# By SeriesNumber. 16001 is described as 4CH and 19001 as 2CH, which their pictures contradict.
VIDA = dict.fromkeys((7001, 8001, 9001, 10001, 11001, 12001), "sax") | {
    14001: "4ch", 16001: "3ch", 17001: "2ch", 19001: "2ch_rv", 22001: "rvot",
}  # fmt: skip
REAL = {
    "siemens_vida_study/dicoms.tar.xz": VIDA,
    "sunnybrook/SCD0000101_contoured_frames.tar.xz": {300: "sax"},
    "sunnybrook/SCD0000301.tar.xz": {5: "sax"},
    "sunnybrook/SCD0000501.tar.xz": {6: "sax"},
}


def score(name: str, frames: list[Frame], truth: dict[str, list[SeriesTruth]]) -> None:
    """Print how many series of a set were sorted right, with and without text."""
    for blank in (False, True):
        studies: dict[str, list[Frame]] = {}
        for frame in frames:
            kept = replace(frame, text="") if blank else frame
            studies.setdefault(frame.study_uid, []).append(kept)
        parts = [part for study in studies.values() for part in sort_parts(study)]
        found = [SeriesTruth(p.series_uid, p.sequence, p.view) for p in parts]
        expected = [entry for entries in truth.values() for entry in entries]
        right = num_right(found, expected)
        unsure = sum(part.confidence < UNSURE_BELOW for part in parts)
        words = "text blanked" if blank else "all tags"
        print(
            f"{name:34} {words:13} {right:5} of {len(expected):5} right "
            f"({right / len(expected):.2%}), {unsure} unsure",
            flush=True,
        )
        wrong = Counter(f"{e.sequence}/{e.view}" for e in Counter(expected) - Counter(found))
        if wrong:
            print("    missed:", ", ".join(f"{what} {n}" for what, n in wrong.most_common()))


def phantoms(folder: Path, patients: int, seed: int) -> None:
    """Score phantom examinations of every vendor."""
    images = {"cine_frames": 8, "matrix_px": 64, "sublevels": 1, "all_sequences": True}
    sites = [{"name": name, "num_patients": patients, "vendors": {name: 1}} for name in VENDORS]
    folder.mkdir()
    make_hospitals(
        PhantomConfig.model_validate({"hospitals": sites, "images": images}), folder, seed
    )
    for name in VENDORS:
        frames, _ = read_frames(folder / name / "dicom")
        truth: dict[str, list[SeriesTruth]] = {}
        for entry in read_series(folder, name):
            truth.setdefault(entry.series_uid, []).append(entry)
        score(f"phantom, {name}", frames, truth)


def real(folder: Path) -> None:
    """Score the real studies."""
    for archive, views in REAL.items():
        target = folder / Path(archive).name
        with tarfile.open(DATA / archive) as file:
            file.extractall(target, filter="data")
        frames, _ = read_frames(target)
        uids = {frame.series_number: frame.series_uid for frame in frames}
        truth = {
            uids[number]: [SeriesTruth(uids[number], "cine", view)]
            for number, view in views.items()
        }
        score(archive.split("/")[-1], frames, truth)
    target = folder / "survey"
    with tarfile.open(DATA / "sunnybrook/SCD0000301_localizers.tar.xz") as file:
        file.extractall(target, filter="data")
    frames, _ = read_frames(target)
    uid = frames[0].series_uid
    score("survey", frames, {uid: [SeriesTruth(uid, "localizer", view) for view in BODY]})
    _, refused = read_frames(DATA / "dicom_edge" / "dwv")
    for reason, count in sorted(refused.items()):
        print(f"dicom_edge/dwv: {count} not sorted: {reason}")


def main() -> None:
    """Make the phantoms, and score them and the real studies."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patients", type=int, default=10, help="phantoms a vendor")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        phantoms(Path(folder) / "phantoms", options.patients, options.seed)
        if DATA.is_dir():
            real(Path(folder))
        else:
            print("no real data; set CONCORS_DATA to the folder that holds it")


if __name__ == "__main__":
    main()
