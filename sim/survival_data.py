"""Public survival data as hospitals that have outcomes and covariates, and no images.

The data stay where they are; what is written is each hospital's own ``outcomes.csv`` and
``site.yaml`` in the run's folder, so that the same client reads them as reads a real hospital.
Beside the hospitals that train, a data set with a published split has a hospital ``<data>-test``,
which holds all its test patients: they are judged as one, as in the publications.

Their patients are public, so nothing is withheld (``min_cell: 1``); at hospitals of four patients
anything else would leave nothing to analyse. No real hospital should set it.
"""

import csv
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from client.dictionary import AS_IS, COVARIATES
from protocol.errors import ConfigError
from protocol.seeds import generator
from sim.config import SurvivalConfig
from sim.secret import write_public_secret

__all__ = ["Row", "make_survival_hospitals", "read_survival_data"]

DAYS_PER_MONTH = 365.25 / 12
# Months a unit of the file's times, and the files.
DEEPSURV = {
    "metabric": ("metabric_IHC4_clinical_train_test.h5", 1.0),
    "gbsg": ("gbsg_cancer_train_test.h5", 1.0),
    "support": ("support_train_test.h5", 1 / DAYS_PER_MONTH),
    "whas": ("whas_train_test.h5", 1 / DAYS_PER_MONTH),
}
UNITS = {"age": "years", "diabetes": "0/1"}


@dataclass(frozen=True)
class Row:
    """One patient: hospital, follow-up in months, event, covariates by name, on which side.

    ``held_out`` is ``None`` where the data have no published split.
    """

    hospital: str
    months: float
    event: int
    covariates: Mapping[str, float]
    held_out: bool | None = None


def read_survival_data(archive: Path, config: SurvivalConfig, seed: int) -> list[Row]:
    """Read one data set and say which hospital each patient belongs to.

    Parameters
    ----------
    archive : Path
        The folder ``survival`` of the real data.
    seed : int
        Deals the patients of a data set without hospitals.

    Returns
    -------
    list of Row
        ``dialysis``: 67 centres. ``tcga_brca``: 6 regions with FLamby's split, and its pooled test
        set. ``metabric``, ``gbsg``, ``support``, ``whas``: the published training patients dealt to
        ``num_hospitals``, and the test set.

    Raises
    ------
    ConfigError
        If the files are not there.
    """
    readers: dict[str, Callable[[], list[Row]]] = {
        "dialysis": lambda: _dialysis(archive),
        "tcga_brca": lambda: _tcga_brca(archive),
    }
    deal = readers.get(config.data, lambda: _deepsurv(archive, config, seed))
    try:
        return deal()
    except OSError as error:
        raise ConfigError(
            f"The data set {config.data} is not in the folder of real data; set CONCORS_DATA to "
            "the folder that holds 'survival'."
        ) from error


def _dialysis(archive: Path) -> list[Row]:
    """67 dialysis centres in Brazil; congenital disease is the reference."""
    rows = []
    with (archive / "survset" / "Dialysis.csv").open(newline="", encoding="utf-8") as stream:
        for line in csv.DictReader(stream):
            covariates = {"age": float(line["num_age"]), "begin": float(line["num_begin"])}
            for disease in ("diabetes", "hypert", "other", "renal"):
                covariates[disease] = float(line["fac_disease"] == disease)
            name = f"dialysis-{line['fac_center']}"
            rows.append(Row(name, float(line["time"]), int(line["event"]), covariates))
    return rows


def _tcga_brca(archive: Path) -> list[Row]:
    """Six regions; the eight patients outside FLamby's split are left out, as there."""
    folder = archive / "tcga_brca_6regions"
    with (folder / "train_test_split.csv").open(newline="", encoding="utf-8") as stream:
        side = {line["pid"]: line["fold2"].split("_") for line in csv.DictReader(stream)}
    rows, test = [], []
    with (folder / "brca.csv").open(newline="", encoding="utf-8") as stream:
        for line in csv.DictReader(stream):
            if line["pid"] not in side:
                continue
            fold, region = side[line["pid"]]
            months = float(line["T"]) / DAYS_PER_MONTH
            covariates = {
                _plain(name): float(cell)
                for name, cell in line.items()
                if name not in ("pid", "E", "T")
            }
            event = int(float(line["E"]))
            rows.append(Row(f"tcga-{region}", months, event, covariates, fold == "test"))
            if fold == "test":
                test.append(Row("tcga-test", months, event, covariates))
    return rows + test


def _plain(name: str) -> str:
    known = {"age_at_index": "age"}
    return known.get(name) or re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_").lower()


def _deepsurv(archive: Path, config: SurvivalConfig, seed: int) -> list[Row]:
    """A fixed training set dealt to hospitals of nearly equal size, and the test set as one."""
    # Only these four sets are HDF5; nothing else in the project needs the library.
    import h5py

    file, months_per_unit = DEEPSURV[config.data]
    rows = []
    with h5py.File(archive / "deepsurv" / file, "r") as content:
        for fold in ("train", "test"):
            part = content[fold]
            x, time, event = (np.asarray(part[key], dtype=np.float64) for key in ("x", "t", "e"))
            place = np.arange(len(time)) % config.num_hospitals
            place = generator(seed, f"sim/{config.data}/deal").permutation(place)
            for index in range(len(time)):
                name = f"{place[index] + 1:02d}" if fold == "train" else "test"
                covariates = {f"x{j}": float(value) for j, value in enumerate(x[index])}
                rows.append(
                    Row(
                        f"{config.data}-{name}",
                        float(time[index]) * months_per_unit,
                        int(event[index]),
                        covariates,
                        # The published test set is apart; at the others everyone trains.
                        False if fold == "train" else None,
                    )
                )
    return rows


def make_survival_hospitals(
    archive: Path, out: Path, config: SurvivalConfig, seed: int
) -> dict[str, Path]:
    """Write one site folder per hospital and return the folders by name, in the order of the data.

    Parameters
    ----------
    archive : Path
        The folder ``survival`` of the real data.
    out : Path
        Where the site folders go.

    Raises
    ------
    ConfigError
        If the data are not there.
    """
    by_hospital: dict[str, list[Row]] = {}
    for row in read_survival_data(archive, config, seed):
        by_hospital.setdefault(row.hospital, []).append(row)
    return {name: _write(out / name, rows) for name, rows in by_hospital.items()}


def _write(site: Path, rows: Sequence[Row]) -> Path:
    site.mkdir(parents=True, exist_ok=True)
    names = list(rows[0].covariates)
    split = rows[0].held_out is not None
    with (site / "outcomes.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["patient", "months", "event", *(["held_out"] if split else []), *names])
        for index, row in enumerate(rows):
            values = [repr(row.covariates[name]) for name in names]
            aside = [int(bool(row.held_out))] if split else []
            writer.writerow([f"p{index:05d}", repr(row.months), row.event, *aside, *values])
    outcomes = {"path": "outcomes.csv", "patient": "patient", "months": "months", "event": "event"}
    columns = {
        name: {"column": name, "unit": UNITS[name] if name in COVARIATES else AS_IS}
        for name in names
    }
    settings = {
        "name": site.name,
        "outcomes": outcomes | ({"held_out": "held_out"} if split else {}),
        "covariates": columns,
        "threads": 1,
        "min_cell": 1,
    }
    (site / "site.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    write_public_secret(site)
    return site
