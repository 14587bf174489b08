"""Studies to tensors: intake against the plain way, in one run and in turns.

Twenty phantom studies of four vendors, about 300 files each with 24 cardiac phases at the vendors'
own matrices. Four claims:

1. headers: at least 1,500 files a second on two cores;
2. a study to its cached tensor, two processes, against a sequential loop with pydicom that ends
   with the same tensors (every file parsed and decoded, sorted, stacked, prepared, saved): at least
   twice as fast;
3. a second epoch from the cache (the cohort is open, every voxel is looked at again) against a
   read of the same bytes from one memory map: at least 80 % of its speed; beside it a new start,
   which opens the cache first, against a new memory map;
4. the second epoch against MONAI's PersistentDataset on the same tensors: at least three times as
   fast.

Each pair is run in turns and the fastest of each is compared, as the noise of a shared machine only
ever adds. On a busy machine two processes get no more of it than one; processor seconds are printed
beside. Files come from memory (they were just written), so no disk is measured.

Run: ``python benchmarks/intake_throughput.py [--studies 20] [--turns 3]`` on a quiet machine.
"""

import argparse
import resource
import sys
import tempfile
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset
from safetensors.numpy import save_file

from client.cache import load_images, save_images
from client.imaging import mapper, read_dicom_site, read_headers
from client.intake.stacks import BASE_TO_APEX
from client.placement import Stack
from client.preprocess import Prepared, prepare
from client.reading import Imaged
from protocol.config import Preprocessing

VENDORS = ("siemens", "philips", "ge", "canon")
OPTIONS = Preprocessing()
SECRET = b"benchmark" * 4
BARS = {"headers": 1500.0, "study": 2.0, "map": 0.8, "monai": 3.0}


def make(folder: Path, num_studies: int) -> Path:
    """Write the studies, one file an image."""
    # Here, as a reading process imports this file anew and needs no phantom.
    from sim.config import PhantomConfig
    from sim.hospitals import make_hospitals

    share = -(-num_studies // len(VENDORS))
    config = PhantomConfig.model_validate(
        {
            "hospitals": [
                {"name": name, "num_patients": share, "vendors": {name: 1}} for name in VENDORS
            ],
            "images": {"cine_frames": 24},
            "quirks": {"enhanced": False},
        }
    )
    make_hospitals(config, folder, seed=1, workers=2)
    return folder


def seconds(
    ways: Mapping[str, Callable[[], object]], turns: int, clock: Callable[[], float]
) -> dict[str, float]:
    """Return the fastest of several turns of each way."""
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(turns):
        for name, way in ways.items():
            start = clock()
            way()
            best[name] = min(best[name], clock() - start)
    return best


def processor_s() -> float:
    """Return the processor time of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def plainly(root: Path, save_to: Path) -> dict[str, Prepared]:
    """Do the same with pydicom, file by file, as one would write it in an afternoon."""
    by_patient: dict[str, list[Dataset]] = defaultdict(list)
    for path in sorted(root.rglob("IM*")):
        dataset = dcmread(path)
        by_patient[str(dataset.PatientID)].append(dataset)
    prepared = {}
    for patient, images in by_patient.items():
        short = [d for d in images if "sa" in str(d.SeriesDescription).lower()]
        late = [d for d in short if "IR" in d.ScanningSequence]
        cine = _stack([d for d in short if "IR" not in d.ScanningSequence])
        prepared[patient] = prepare(cine, OPTIONS, lge=_stack(late))
    arrays = {f"{key}/cine": value.cine for key, value in prepared.items()}
    arrays |= {f"{key}/lge": value.lge for key, value in prepared.items() if value.lge is not None}
    save_file(arrays, save_to)
    return prepared


def _stack(images: list[Dataset]) -> Stack:
    row, column = np.split(np.array(images[0].ImageOrientationPatient, float), 2)
    normal = np.cross(row, column)
    normal /= np.linalg.norm(normal) * np.sign(normal @ BASE_TO_APEX)
    slices: dict[float, list[Dataset]] = defaultdict(list)
    for image in images:
        slices[round(float(normal @ np.array(image.ImagePositionPatient, float)), 1)].append(image)
    ordered = [sorted(slices[at], key=lambda d: float(d.TriggerTime)) for at in sorted(slices)]
    pixels = np.stack([[_physical(d) for d in group] for group in ordered], axis=1)
    first = ordered[0][0]
    dy, dx = map(float, first.PixelSpacing)
    dz = float(np.median(np.diff(sorted(slices))))
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = row * dx, column * dy, normal * dz
    affine[:3, 3] = np.array(first.ImagePositionPatient, float)
    return Stack(pixels, affine, (dz, dy, dx))


def _physical(image: Dataset) -> np.ndarray:
    slope = float(image.get("RescaleSlope", 1.0))
    return image.pixel_array.astype(np.float32) * np.float32(slope)


def same_tensors(ours: list[Imaged], plain: Mapping[str, Prepared]) -> float:
    """Return the largest difference of the two ways' tensors; patients are matched by content."""
    rest = list(plain.values())
    worst = 0.0
    for imaged in ours:
        cine = imaged.prepared.cine
        away = [
            float(np.abs(p.cine - cine).mean()) if p.cine.shape == cine.shape else 9.0 for p in rest
        ]
        match = rest.pop(int(np.argmin(away)))
        worst = max(worst, float(np.abs(match.cine - cine).max()))
    return worst


def opened(folder: Path) -> list[np.ndarray]:
    """Open the cache."""
    found = load_images(folder, "epoch")
    assert found is not None
    return [array for patient in found[0] for array in _arrays(patient)]


def looked_at(arrays: list[np.ndarray]) -> float:
    """Look at every voxel."""
    return sum(float(array.sum()) for array in arrays)


def _arrays(patient: Imaged) -> list[np.ndarray]:
    found = patient.prepared
    return [found.cine] if found.lge is None else [found.cine, found.lge]


def epochs(patients: list[Imaged], folder: Path, turns: int) -> dict[str, float]:
    """Time a second epoch of the cache, of a memory map and of MONAI's persistent data set."""
    # Here, as a reading process imports this file anew and needs neither.
    import torch
    from monai.data.dataset import PersistentDataset

    torch.set_num_threads(1)
    cache, plain = folder / "cache", folder / "bytes"
    save_images(cache, "epoch", patients, Counter())
    np.concatenate([a.ravel() for p in patients for a in _arrays(p)]).tofile(plain)
    items = [{"image": torch.from_numpy(a.copy())} for p in patients for a in _arrays(p)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        monai = PersistentDataset(items, transform=(), cache_dir=folder / "monai")

        def epoch_of_monai() -> float:
            return sum(float(monai[i]["image"].numpy().sum()) for i in range(len(monai)))

        def mapped() -> np.ndarray:
            return np.memmap(plain, dtype=np.float32, mode="r")

        ours, one_map = opened(cache), mapped()
        epoch_of_monai()
        return seconds(
            {
                "ours": lambda: looked_at(ours),
                "map": lambda: looked_at([one_map]),
                "ours anew": lambda: looked_at(opened(cache)),
                "map anew": lambda: looked_at([mapped()]),
                "monai": epoch_of_monai,
            },
            5 * turns,
            time.perf_counter,
        )


def report(name: str, text: str, value: float) -> bool:
    """Print one line of the table; return whether the claim holds."""
    good = value >= BARS[name]
    print(f"{text:58}{value:10.2f}   claim: at least {BARS[name]:g}{'' if good else '  MISSED'}")
    return good


def main() -> int:
    """Print the table; exit with 1 if a claim fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=20)
    parser.add_argument("--turns", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        return measure(make(Path(name) / "sites", asked.studies), Path(name), asked.turns)


def measure(root: Path, folder: Path, turns: int) -> int:
    """Run the four comparisons on the studies below ``root``."""
    files = [str(p) for p in sorted(root.rglob("IM*"))]
    kept: dict[str, object] = {}

    def ours(workers: int) -> None:
        patients, refused = read_dicom_site(root, SECRET, OPTIONS, workers=workers)
        save_images(folder / "out", f"of{workers}", patients, refused)
        kept["ours"] = patients

    def plain() -> None:
        kept["plain"] = plainly(root, folder / "plain.safetensors")

    with mapper(2) as two, mapper(1) as one:
        # A pool starts once a site, not once a study; its start stands in the second comparison.
        read_headers(files[:400], two)
        headers = seconds(
            {"one": lambda: read_headers(files, one), "two": lambda: read_headers(files, two)},
            turns,
            time.perf_counter,
        )
        per_second = seconds({"one": lambda: read_headers(files, one)}, 2, processor_s)["one"]
    ways = {"two": lambda: ours(2), "one": lambda: ours(1), "plain": plain}
    study = seconds(ways, turns, time.perf_counter)
    cost = seconds(ways, 1, processor_s)
    difference = same_tensors(kept["ours"], kept["plain"])  # type: ignore[arg-type]
    epoch = epochs(kept["ours"], folder, turns)  # type: ignore[arg-type]
    print(f"{len(files)} files; the two ways' tensors differ by at most {difference:.1e}")
    print(f"{'headers, one process, files/s':58}{len(files) / headers['one']:10.2f}")
    print(f"{'headers, files per processor second':58}{len(files) / per_second:10.2f}")
    names = {"plain": "plain loop", "one": "ours, one process", "two": "ours, two processes"}
    for way, text in names.items():
        took = f"{study[way]:10.2f}   of processor time {cost[way]:.2f}"
        print(f"{f'studies to tensors: {text}, s':58}{took}")
    anew = epoch["map anew"] / epoch["ours anew"]
    print(f"{'a new start: memory map / ours':58}{anew:10.2f}")
    claims = [
        report("headers", "headers, two processes, files/s", len(files) / headers["two"]),
        report("study", "studies to tensors: plain / ours", study["plain"] / study["two"]),
        report("map", "second epoch: memory map / ours", epoch["map"] / epoch["ours"]),
        report("monai", "second epoch: PersistentDataset / ours", epoch["monai"] / epoch["ours"]),
    ]
    return 0 if all(claims) and difference < 1e-4 else 1


if __name__ == "__main__":
    sys.exit(main())
