"""The public survival data as hospitals: who is where, and nothing lost on the way."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from client.cohort import load_cohort
from client.hospital import open_hospital
from protocol.config import Preprocessing, Study
from protocol.errors import ConfigError
from sim.config import SurvivalConfig
from sim.survival_data import make_survival_hospitals, read_survival_data


def test_dialysis_has_67_centres(shared_data: Path) -> None:
    rows = read_survival_data(shared_data / "survival", SurvivalConfig(data="dialysis"), 0)
    sizes = Counter(row.hospital for row in rows)
    assert (len(rows), sum(row.event for row in rows), len(sizes)) == (6805, 1603, 67)
    assert (min(sizes.values()), max(sizes.values())) == (4, 241)
    assert len({row.months for row in rows}) == 44


def test_tcga_brca_keeps_the_published_split(shared_data: Path) -> None:
    rows = read_survival_data(shared_data / "survival", SurvivalConfig(data="tcga_brca"), 0)
    regions = [row for row in rows if row.hospital != "tcga-test"]
    assert (len(regions), sum(row.event for row in regions)) == (1088, 151)
    sizes = Counter((row.hospital, row.held_out) for row in regions)
    assert [sizes[f"tcga-{k}", False] for k in range(6)] == [248, 156, 164, 129, 129, 40]
    test = [row for row in rows if row.hospital == "tcga-test"]
    assert (len(test), sum(row.event for row in test)) == (222, 32)
    assert len(rows[0].covariates) == 39


@pytest.mark.parametrize(
    ("data", "train", "test"),
    [("metabric", 1523, 381), ("gbsg", 1546, 686), ("support", 7098, 1775), ("whas", 1310, 328)],
)
def test_fixed_splits_are_dealt_to_ten(shared_data: Path, data: str, train: int, test: int) -> None:
    config = SurvivalConfig.model_validate({"data": data})
    rows = read_survival_data(shared_data / "survival", config, 1)
    sizes = Counter(row.hospital for row in rows)
    assert sizes.pop(f"{data}-test") == test
    assert len(sizes) == 10 and sum(sizes.values()) == train
    assert max(sizes.values()) - min(sizes.values()) <= 1
    again = read_survival_data(shared_data / "survival", config, 1)
    assert again == rows
    other = read_survival_data(shared_data / "survival", config, 2)
    assert [row.hospital for row in other] != [row.hospital for row in rows]


def test_a_client_reads_the_numbers_of_the_file(shared_data: Path, tmp_path: Path) -> None:
    archive, config = shared_data / "survival", SurvivalConfig(data="metabric")
    rows = read_survival_data(archive, config, 1)
    sites = make_survival_hospitals(archive, tmp_path, config, 1)
    cohort = load_cohort(sites["metabric-03"], Preprocessing())

    def sorted_rows(table: list[list[float]]) -> np.ndarray:
        return np.array(sorted(table))

    expected = [
        [row.months, row.event, *row.covariates.values()]
        for row in rows
        if row.hospital == "metabric-03"
    ]
    found = [[p.months, p.event, *p.covariates.values()] for p in cohort.patients]
    np.testing.assert_array_equal(sorted_rows(found), sorted_rows(expected))


def test_the_fixed_split_reaches_the_study(shared_data: Path, tmp_path: Path) -> None:
    sites = make_survival_hospitals(
        shared_data / "survival", tmp_path, SurvivalConfig(data="tcga_brca"), 1
    )
    study = Study.model_validate({"name": "t", "seed": 9, "hospitals": {"train": ["tcga-5"]}})
    hospital = open_hospital(sites["tcga-5"], study)
    assert (len(hospital.training), len(hospital.held_out)) == (40, 11)


def test_absent_data_are_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="data set dialysis is not in the folder of real data"):
        read_survival_data(tmp_path, SurvivalConfig(data="dialysis"), 0)
