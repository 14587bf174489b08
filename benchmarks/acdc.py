"""ACDC as five hospitals, federated beside pooled; then the model on other people's scanners.

    python benchmarks/acdc.py --out runs/acdc-1

Runs ``configs/acdc.yaml`` unless ``--out`` holds its results. The federated network then segments
two Sunnybrook patients (GE 1.5 T) and the Vida study (Siemens 3 T) from their DICOM; the manual
volumes beside them are those of the data's own contours, by the same slice distance.
"""

import argparse
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import yaml

from client.cohort import load_cohort
from client.hospital import Hospital
from client.measure import segment_patients
from client.quantities import volumes
from client.site import load_site
from protocol.config import Study, load_study
from server.results import Results, load_results
from shared_models.weights import load
from sim.simulation import real_data

REPOSITORY = Path(__file__).resolve().parents[1]
CONFIG = REPOSITORY / "configs" / "acdc.yaml"
STUDIES = {
    "Sunnybrook 301": ("sunnybrook/SCD0000301.tar.xz", (229.7, 179.6, 21.8)),
    "Sunnybrook 501": ("sunnybrook/SCD0000501.tar.xz", (216.4, 160.6, 25.8)),
    "Vida (6 slices)": ("siemens_vida_study/dicoms.tar.xz", None),
}


def print_dice(results: Results) -> None:
    """Print Dice by class and phase per arm, over all held-out patients."""
    print(
        f"{'arm':<10} " + " ".join(f"{c} {p:<5}" for c in ("LV", "MYO", "RV") for p in ("ED", "ES"))
    )
    means = {}
    for arm, judged in results.arms.items():
        total = None
        for site in judged.sites.values():
            if site.overlap is not None:
                total = site.overlap if total is None else total.merge(site.overlap)
        if total is None:
            continue
        cells = [total.cell("dice", c, p).mean for c in total.classes for p in total.phases]
        means[arm] = sum(cells) / len(cells)
        row = " ".join(f"{value:7.4f} " for value in cells)
        print(f"{arm:<10} {row} mean {means[arm]:.4f}")
    if "pooled" in means:
        print(f"federated / pooled: {means['federated'] / means['pooled']:.4f}")


def print_elsewhere(study: Study, model: Path) -> None:
    """Print what the network measures on studies from other hospitals' DICOM."""
    arrays, _ = load(model)
    for title, (archive, manual) in STUDIES.items():
        with tempfile.TemporaryDirectory() as folder:
            site = Path(folder)
            settings = {"name": "elsewhere", "images": {"format": "dicom", "path": "dicom"}}
            (site / "site.yaml").write_text(yaml.safe_dump(settings))
            with tarfile.open(real_data() / archive) as tar:
                tar.extractall(site / "dicom", filter="data")
            cohort = load_cohort(site, study.preprocessing)
            hospital = Hospital(site, load_site(site), (cohort,), cohort.patients, ())
            for patient, found in zip(
                hospital.patients,
                segment_patients(hospital, study, arrays, hospital.patients),
                strict=True,
            ):
                ours = volumes(found, patient.spacing_mm)
                text = "EDV {lv_edv_ml:.1f} ESV {lv_esv_ml:.1f} ml EF {lv_ef_percent:.1f} %"
                print(f"{title:<16} network " + text.format(**ours), end="")
                if manual is not None:
                    edv, esv, ef = manual
                    print(f" | manual EDV {edv} ESV {esv} ml EF {ef} %", end="")
                print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/acdc-1"))
    options = parser.parse_args()
    if not (options.out / "results.json").is_file():
        command = ["concors-sim", "run", str(CONFIG), "--out", str(options.out)]
        subprocess.run(command, check=True, stdout=sys.stderr)
    print_dice(load_results(options.out / "results.json"))
    print_elsewhere(load_study(CONFIG), options.out / "segment" / "final.safetensors")


if __name__ == "__main__":
    main()
