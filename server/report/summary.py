"""What the study found, in three sentences and four numbers."""

import math
from dataclasses import dataclass

from server.report.pooling import arm_label, hospitals_of, main_arm, pooled
from server.report.text import interval, number
from server.report.validation_tables import arm_rows, mean_dice
from server.results import Results, SiteValidation

__all__ = ["Figure", "key_figures", "summary_sentences"]


@dataclass(frozen=True)
class Figure:
    """One number in large type, with what it is."""

    value: str
    label: str
    note: str


def _judged(results: Results) -> tuple[SiteValidation, bool]:
    arm = main_arm(results)
    if arm is None:
        return SiteValidation(), False
    outside = pooled(results, arm, "external")
    seen = outside.pairs is not None or outside.overlap is not None
    return (outside, True) if seen else (pooled(results, arm, "train"), False)


def summary_sentences(results: Results) -> list[str]:
    """Return plain sentences, the judgement at external hospitals first."""
    part, external = _judged(results)
    sentences = [_where(results, external)]
    ranking = _ranking(results, part, external)
    if ranking:
        sentences.append(ranking)
    dice = {name: mean_dice(part.overlap, name) for name in ("LV", "MYO", "RV")}
    if not all(map(math.isnan, dice.values())):
        sentences.append(
            f"Its contours overlapped the reference with a mean Dice of {number(dice['LV'], 3)} "
            f"for the LV cavity, {number(dice['MYO'], 3)} for the myocardium and "
            f"{number(dice['RV'], 3)} for the RV cavity (1 is perfect)."
        )
    ef = part.agreement.get("lv_ef_percent")
    if ef is not None:
        direction = "above" if ef.bias >= 0 else "below"
        sentences.append(
            f"LV ejection fraction was on average {number(abs(ef.bias), 1)} percentage points "
            f"{direction} the reference; 95 % of differences are expected between "
            f"{interval(*ef.limits, 1, 'and')}."
        )
    return sentences


def _where(results: Results, external: bool) -> str:
    arm = main_arm(results)
    trained = len(hospitals_of(results, "train"))
    hospitals = f"{trained} hospital{'s' if trained > 1 else ''}"
    if arm is None:
        return f"{hospitals} took part; no model has been judged yet."
    name = arm_label(arm).lower()
    if not external:
        return (
            f"The {name} model was trained at {hospitals} and judged only on patients these "
            "hospitals held out. No external hospital judged it: expect less elsewhere."
        )
    outside = hospitals_of(results, "external")
    which = ", ".join(outside)
    kind = "hospitals that" if len(outside) > 1 else "a hospital that"
    return (
        f"The {name} model was trained at {hospitals} and judged at {which}, {kind} never trained."
    )


def _ranking(results: Results, part: SiteValidation, external: bool) -> str:
    pairs = part.pairs
    if pairs is None or not pairs.comparable:
        return ""
    text = (
        f"Of two patients of one hospital it gave the higher risk to the one with the earlier "
        f"event in {100 * pairs.c_index:.0f} % of pairs: C-index {number(pairs.c_index, 2)} "
        f"(95 % interval {interval(*pairs.interval(), 2)}; {pairs.num_patients} patients, "
        f"{pairs.num_events} events)"
    )
    oracle = [row for row in arm_rows(results) if row.oracle]
    best = (oracle[0].external if external else oracle[0].internal) if oracle else None
    if best is not None and best.comparable:
        text += f", where the true hazard itself reaches {number(best.c_index, 2)}"
    return text + "."


def key_figures(results: Results) -> list[Figure]:
    """Return the numbers of the page's head; those not measured are left out."""
    part, external = _judged(results)
    place = "external" if external else "internal hold-out"
    figures = []
    if part.pairs is not None and part.pairs.comparable:
        low_high = interval(*part.pairs.interval(), 2)
        note = f"95 % interval {low_high}, {place}"
        figures.append(Figure(number(part.pairs.c_index, 2), "C-index", note))
    for name, label in (("LV", "Dice, LV cavity"), ("MYO", "Dice, myocardium")):
        value = mean_dice(part.overlap, name)
        if not math.isnan(value):
            figures.append(Figure(number(value, 3), label, f"mean of ED and ES masks, {place}"))
    ef = part.agreement.get("lv_ef_percent")
    if ef is not None:
        bias = ("+" if ef.bias > 0 else "") + number(ef.bias, 1)
        note = f"percentage points; limits {interval(*ef.limits, 1)}, {place}"
        figures.append(Figure(bias, "Bias, LV ejection fraction", note))
    return figures
