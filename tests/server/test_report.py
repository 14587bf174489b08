"""The report: right numbers, nothing external, nothing unescaped, the same bytes."""

import importlib.util
import re
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from protocol.errors import PayloadError
from protocol.stats import ScoreTable, merge_all
from protocol.stats.table_concordance import harrell_c
from server.report.examples import Example
from server.report.text import count, interval, mean_sd, number, p_value
from server.report.write import render_report, write_report
from server.results import Results
from shared_models.metrics.meta_analysis import random_effects


def _example() -> ModuleType:
    place = Path(__file__).with_name("study_example.py")
    spec = importlib.util.spec_from_file_location("study_example", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def study() -> ModuleType:
    return _example()


@pytest.fixture(scope="module")
def values(study: ModuleType) -> dict:
    return study.example_results()


@pytest.fixture(scope="module")
def page(study: ModuleType, values: dict) -> str:
    return render_report(values, examples=study.example_images())


class Tags(HTMLParser):
    """Collects tags, attributes and whether every element is closed."""

    VOID = frozenset({"meta", "br", "path", "use", "image", "rect"})

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag in self.open:
            while self.open.pop() != tag:
                pass


def text_of(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page).replace("&nbsp;", " "))


def test_external_numbers_are_those_of_the_sums(page: str, values: dict) -> None:
    harbour = values["arms"]["federated"]["sites"]["harbour"]
    pairs, text = harbour["pairs"], text_of(page)
    low, high = pairs.interval()
    assert f"C-index {pairs.c_index:.2f} (95 % interval {low:.2f} to {high:.2f}" in text.replace(
        "\u00a0", " "
    )
    assert f"{pairs.num_patients} patients, {pairs.num_events} events" in text
    dice = harbour["overlap"].cell("dice", "LV", "ED")
    assert f"{dice.mean:.3f} ± {dice.sd:.3f}" in text
    ef = harbour["agreement"]["lv_ef_percent"]
    assert f"{ef.limits[0]:.1f}".replace("-", "−") in text


def test_internal_index_is_that_of_the_added_pairs(page: str, values: dict) -> None:
    sites = values["arms"]["pooled"]["sites"]
    total = merge_all([sites[name]["pairs"] for name in ("north", "river", "hill", "island")])
    row = text_of(page[page.index("C-index, 0") if "C-index, 0" in page else 0 :])
    assert f"Pooled data {total.c_index:.3f}" in row
    assert f"{total.num_patients} {total.num_events} {total.comparable:,}" in row


def test_no_address_no_script(page: str) -> None:
    assert "http" not in page
    tags = Tags()
    tags.feed(page)
    names = {tag for tag, _ in tags.seen}
    assert not names & {"script", "link", "iframe", "object", "embed", "base", "form"}
    for _, attributes in tags.seen:
        for key in ("src", "href", "xlink:href"):
            value = attributes.get(key) or "#"
            assert value.startswith(("#", "data:image/png;base64,"))
        assert not any(key.startswith("on") for key in attributes)
    assert "url(" not in page.replace("url(#", "")
    assert tags.open == []


def test_ids_are_unique(page: str) -> None:
    ids = re.findall(r'\sid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    wanted = set(re.findall(r"url\(#([^)]+)\)", page)) | set(
        re.findall(r'xlink:href="#([^"]+)"', page)
    )
    assert wanted <= set(ids)


def test_same_results_same_bytes(page: str, study: ModuleType, values: dict) -> None:
    plain = Results.of(values).model_dump()
    assert render_report(plain, examples=study.example_images()) == page


def test_names_are_text_not_markup(values: dict) -> None:
    evil = "<img src=x onerror=alert(1)> & $x^2$"
    hospitals = [{**values["hospitals"][0], "name": evil, "refused": {evil: 1}}]
    pairs = values["arms"]["federated"]["sites"]["north"]
    changed = {
        **values,
        "study": {**values["study"], "name": evil},
        "hospitals": hospitals,
        "arms": {f"local/{evil}": {"sites": {evil: pairs}}},
        "training": {"segment": {"loss": {evil: [1.0, 0.5]}}},
        "oracle": None,
    }
    image = np.zeros((8, 8))
    example = Example(evil, image, image.astype(int))
    page = render_report(changed, examples=[example])
    assert "<img" not in page
    assert page.count("&lt;img src=x onerror=alert(1)&gt; &amp; $x^2$") > 5


def test_withheld_counts_are_shown_as_such(values: dict) -> None:
    first = {**values["hospitals"][0], "patients": None, "events": None, "vendors": {"ge": None}}
    page = render_report({**values, "hospitals": [first], "arms": {}, "oracle": None})
    assert page.count("<td>&lt;5</td>") >= 3
    assert "no model has been judged yet" in page


def test_only_a_simulation_says_simulated(page: str, values: dict) -> None:
    assert "Simulated patients" in page
    facts = {**values["study"], "simulated": False}
    real = {**values, "study": facts, "oracle": None, "arms": {}, "training": {}}
    text = render_report(real)
    assert "Simulated patients" not in text
    assert "racle" not in text
    assert "Example images" not in text


def test_without_an_external_hospital_it_says_so(values: dict) -> None:
    hospitals = [{**hospital, "role": "train"} for hospital in values["hospitals"]]
    text = text_of(render_report({**values, "hospitals": hospitals}))
    assert "No external hospital judged it" in text


def test_segmentation_alone_and_prognosis_alone(values: dict) -> None:
    for keep, gone in (
        (("overlap", "agreement"), "Kaplan-Meier curves"),
        (("pairs", "life_table", "calibration"), "Bland-Altman plots"),
    ):
        sites = {
            name: {key: site[key] for key in keep}
            for name, site in values["arms"]["federated"]["sites"].items()
        }
        page = render_report({**values, "arms": {"federated": {"sites": sites}}})
        assert gone not in page


def _withheld(sums: dict) -> dict:
    # Its boxes are coarse already: what a hospital withholds as a whole is the empty table.
    table = sums["score_table"]
    blank = {"score_table": ScoreTable.empty(table.edges, table.grid_months)}
    apart = {"score_table", "auc", "calibration_errors"}
    blank |= {name: part.suppressed(10**6) for name, part in sums.items() if name not in apart}
    nested = {name: part for name, part in sums.items() if type(part) is dict}
    return blank | {
        name: {key: part.suppressed(10**6) for key, part in parts.items()}
        for name, parts in nested.items()
    }


def test_hospitals_that_sent_nothing_break_nothing(values: dict) -> None:
    blank: dict = {}
    for name, site in values["arms"]["federated"]["sites"].items():
        blank[name] = {
            "overlap": site["overlap"].suppressed(10**6),
            "agreement": {k: v.suppressed(10**6) for k, v in site["agreement"].items()},
            "pairs": site["pairs"].suppressed(10**6),
            "life_table": site["life_table"].suppressed(10**6),
            "calibration": site["calibration"].suppressed(10**6),
            "evaluation": _withheld(site["evaluation"]),
        }
    evaluation = values["arms"]["federated"]["evaluation"]
    arms = {"federated": {"sites": blank, "evaluation": evaluation}}
    page = render_report({**values, "arms": arms, "oracle": None, "training": {}})
    assert "nan" not in text_of(page)


def test_the_evaluation_is_that_of_the_sums(page: str, values: dict) -> None:
    arm, text = values["arms"]["federated"], text_of(page)
    harbour = arm["sites"]["harbour"]["evaluation"]
    uno = harbour["uno"]
    low, high = uno.interval()
    row = (
        f"Uno's C, within hospitals {uno.value:.3f} {uno.num_pairs:,} pairs {low:.3f} to {high:.3f}"
    )
    assert f"{row} {uno.num_patients} {uno.num_events} 60" in text.replace("&#39;", "'")
    across = harrell_c(harbour["score_table"])
    assert f"bounds {across.low:.3f} to {across.high:.3f}" in text
    at = harbour["brier"].horizons_months.index(60.0)
    assert f"Brier score {harbour['brier'].scores[at]:.3f}" in text
    slope = next(f for f in arm["evaluation"]["external"]["calibration"] if f["form"] == "linear")
    assert f"{slope['coefficients'][1]:.2f}" in text
    names = ("north", "river", "hill", "island")
    pairs = [arm["sites"][name]["pairs"] for name in names]
    mean = random_effects(
        [p.c_index for p in pairs], [p.standard_error**2 for p in pairs], logit=True
    )
    assert f"{mean.estimate:.3f} 4 hospitals {mean.low:.3f} to {mean.high:.3f}" in text
    assert f"{mean.predicted_low:.3f} to {mean.predicted_high:.3f}" in text
    for figure in ("forest-hospitals", "calibration-curves", "decision-curves"):
        assert DESCRIPTIONS[figure] in page


DESCRIPTIONS = {
    "forest-hospitals": "C-index of every hospital and of all together",
    "calibration-curves": "Smooth observed against predicted risk",
    "decision-curves": "Net benefit of model, treat all and treat none",
}


def test_writes_the_file(values: dict, tmp_path: Path, page: str, study: ModuleType) -> None:
    write_report(values, tmp_path / "report.html", examples=study.example_images())
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == page
    assert len(page) < 3_000_000


def test_example_on_another_grid_is_refused(values: dict) -> None:
    wrong = Example("slice", np.zeros((8, 8)), np.zeros((4, 4), int))
    with pytest.raises(PayloadError, match="labels on another grid"):
        render_report(values, examples=[wrong])


def test_numbers_as_text() -> None:
    assert number(-0.04, 1) == "0.0"
    assert number(-1234.5, 1) == "−1,234.5"
    assert number(float("nan"), 1) == number(None, 1) == "–"
    assert count(None, 5) == "<5"
    assert count(1200, 5) == "1,200"
    assert mean_sd(0.9, float("nan"), 2) == "0.90"
    assert interval(float("nan"), 1.0, 2) == "–"
    assert (p_value(0.0004), p_value(0.034), p_value(0.5)) == ("< 0.001", "= 0.034", "= 0.50")
