"""Designs and subgroups in the report: the figures, and only what was run."""

import numpy as np
import pytest

from protocol.errors import TrainingError
from protocol.stats import PairCounts
from server.design_results import DesignResults, DesignRun, Optimism, SubgroupRow
from server.judgements import Overlap, Ranking
from server.optimism import optimism
from server.report.designs import left_out_meta, left_out_table, optimism_table
from server.report.matrix_figure import matrix_figure
from server.report.subgroup_table import subgroup_table
from server.report.write import render_report
from server.results import Results
from shared_models.metrics.meta_analysis import random_effects

NAMES = ("a", "b", "c")


def ranking(c_index: float | None, se: float | None = 0.05, patients: int = 1234) -> Ranking:
    if c_index is None:
        return Ranking(patients=patients, events=0)
    limits = {"lower": c_index - 0.1, "upper": min(c_index + 0.1, 1.0)}
    return Ranking(patients=patients, events=56, pairs=900, c_index=c_index, se=se, **limits)


def run(name: str, c_index: float | None, **changes: object) -> DesignRun:
    values = {"name": name, "train": ("x",), "network": {name: ranking(c_index)}}
    return DesignRun.model_validate(values | changes)


def results(**changes: object) -> Results:
    hospital = {"name": "a", "role": "train", "patients": 40}
    study = {"name": "s", "seed": 1, "code_version": "0"}
    return Results.of({"study": study, "hospitals": [hospital], **changes})


def test_a_study_without_designs_has_no_section_for_them() -> None:
    page = render_report(results())
    assert "Validation designs" not in page and "Groups of patients" not in page


def test_the_average_hospital_is_the_meta_analysis_of_those_with_a_figure() -> None:
    runs = [run("a", 0.7), run("b", 0.62), run("c", 0.81), run("d", None), run("e", 1.0)]
    found = left_out_meta(runs, "network")
    assert found == random_effects([0.7, 0.62, 0.81], [0.05**2] * 3, logit=True)
    table = left_out_table(runs)
    assert table is not None and table.corner == "Left out"
    assert [row.label for row in table.rows][-2:] == ["Average hospital", "A further hospital"]
    assert table.rows[0].cells == ("1,234", "56", "0.700", "0.60 to 0.80")
    assert table.rows[3].cells == ("–",) * 4
    assert table.rows[-2].cells[2] == f"{found.estimate:.3f}"


def test_one_hospital_is_no_meta_analysis() -> None:
    assert left_out_meta([run("a", 0.7), run("b", None)], "network") is None
    table = left_out_table([run("a", 0.7), run("b", None)])
    assert table is not None and [row.label for row in table.rows] == ["a", "b"]
    assert left_out_table([]) is None


def test_the_matrix_says_every_figure_with_its_number_of_patients() -> None:
    runs = [
        DesignRun(name=i, train=(i,), regression={j: ranking(0.6 + 0.05 * k, patients=10 * k + 7)})
        for k, (i, j) in enumerate(zip(NAMES, ("b", "c", "far"), strict=True))
    ]
    drawn = matrix_figure(runs, "regression")
    assert drawn is not None
    for text in ("0.60", "0.65", "0.70", ">7<", ">17<", ">27<", "far", "trained alone at"):
        assert text in drawn, text
    assert matrix_figure(runs, "regression") == drawn
    assert matrix_figure(runs, "network") is None and matrix_figure([], "overlap") is None


def test_many_hospitals_are_colours_alone() -> None:
    names = [f"h{k}" for k in range(20)]
    runs = [DesignRun(name=i, train=(i,), network={j: ranking(0.7) for j in names}) for i in names]
    drawn = matrix_figure(runs, "network")
    assert drawn is not None and "1,234" not in drawn


def test_every_part_stands_in_the_page() -> None:
    designs = DesignResults(
        leave_one_out=(run("a", 0.7), run("b", 0.6)),
        matrix=(
            run("a", 0.65, overlap={"a": Overlap(patients=9, dice=0.8)}),
            run("<b>", None, reason="No <finite> fit; leave it out.", network={}),
        ),
        optimism=Optimism(patients=90, events=30, apparent=0.75, optimism=0.03, corrected=0.72),
    )
    page = render_report(results(designs=designs))
    for text in (
        "Every hospital left out once",
        "Survival network: 2 hospitals",
        "Model of one hospital at another: Survival network, C-index",
        "Segmentation network, Dice",
        "Optimism of the Cox regression",
        "No &lt;finite&gt; fit",
    ):
        assert text in page, text
    assert page.count('id="') == len({part.split('"')[0] for part in page.split('id="')[1:]})


def test_optimism_by_hand() -> None:
    pairs = PairCounts.of([1, 2, 3, 4], [1, 1, 1, 0], [4, 3, 1, 2], tau_months=9)
    # Six pairs, one in the wrong order: C = 5/6. Gains .1, .2, .3: mean .2, sd .1.
    found = optimism(pairs, [(0.8, 0.7), (0.9, 0.7), (0.95, 0.65)], patients=4, failed=1)
    assert found.apparent == pytest.approx(5 / 6)
    assert (found.optimism, found.corrected) == pytest.approx((0.2, 5 / 6 - 0.2))
    assert found.optimism_se == pytest.approx(0.1 / np.sqrt(3))
    low, high = np.quantile([0.8, 0.9, 0.95], [0.025, 0.975]) - 0.2
    assert (found.lower, found.upper) == pytest.approx((low, high))
    table = optimism_table(found)
    assert table is not None and table.rows[0].label == "3 resamples, 1 more failed"
    assert table.rows[0].cells[2:5] == ("0.8333", "0.2000 ± 0.0577", "0.6333")
    with pytest.raises(TrainingError, match="No hospital told of a comparable pair"):
        optimism(PairCounts.empty(9.0), [], patients=4)


def test_groups_stand_under_their_attribute_with_n_and_interval() -> None:
    rows = (
        SubgroupRow(role="train", attribute="vendor", group="unknown", hospitals=1),
        SubgroupRow(
            role="train", attribute="sex", group="female", hospitals=2, network=ranking(0.7)
        ),
        SubgroupRow(
            role="external",
            attribute="sex",
            group="male",
            hospitals=1,
            network=ranking(0.66),
            overlap=Overlap(patients=31, dice=0.834, lower=0.8, upper=0.87),
        ),
    )
    shown = results(subgroups=rows)
    table = subgroup_table(shown)
    assert table is not None
    assert [row.label for row in table.rows] == ["Sex", "female", "male"]
    assert table.rows[1].cells[:3] == ("1,234", "56", "0.700\n0.60 to 0.80")
    assert table.rows[2].cells[-2:] == ("31", "0.834\n0.80 to 0.87")
    page = render_report(shown)
    assert "Groups of patients" in page and "Sex: female" in page
