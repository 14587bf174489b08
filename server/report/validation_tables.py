"""How well the models did: overlap, agreement and concordance."""

import math

from protocol.evaluation import ROLES
from protocol.stats import QUANTITIES, OverlapSums, PairCounts
from protocol.stats.table_concordance import harrell_c
from server.evaluation_results import SiteEvaluation
from server.report.cohort_table import hospital_columns
from server.report.pooling import arm_label, main_arm, pooled
from server.report.survival_figures import ForestRow
from server.report.table import Column, Row, Table
from server.report.text import DASH, interval, mean_sd, number
from server.results import Arm, Results, SiteValidation

__all__ = [
    "agreement_table",
    "arm_overlap_table",
    "arm_rows",
    "concordance_by_hospital",
    "concordance_table",
    "overlap_table",
]

METRICS = {"dice": ("Dice", 3), "hd95_mm": ("HD95, mm", 1), "assd_mm": ("ASSD, mm", 2)}
CLASSES = {"LV": "LV cavity", "MYO": "Myocardium", "RV": "RV cavity"}
PHASES = {"ED": "end-diastole", "ES": "end-systole"}


def overlap_table(results: Results) -> Table | None:
    """Return overlap by class and phase, one column a hospital; None where none was measured."""
    arm = main_arm(results)
    if arm is None:
        return None
    sites = results.arms[arm].sites
    hospitals = [h for h in results.hospitals if h.name in sites and sites[h.name].overlap]
    hospitals.sort(key=lambda hospital: hospital.role == "external")
    columns = [(column, sites[column.title].overlap) for column in hospital_columns(hospitals)]
    training = [pair for pair in columns if not pair[0].external]
    if len(training) > 1:
        total = (Column("all", training[0][0].group), pooled(results, arm, "train").overlap)
        columns.insert(len(training), total)
    if not columns:
        return None
    sums = [part for _, part in columns if part is not None]
    most = (str(max(part.moments.n.max(), 0)) for part in sums)
    rows = [Row("Patients with reference masks", tuple(most))]
    for metric, (title, digits) in METRICS.items():
        better = "higher is better" if metric == "dice" else "lower is better"
        rows.append(Row(f"{title} ({better})", heading=True))
        rows.extend(_overlap_rows(sums, metric, digits))
    return Table(tuple(column for column, _ in columns), tuple(rows))


def _overlap_rows(columns: list[OverlapSums], metric: str, digits: int) -> list[Row]:
    rows = []
    for class_name in columns[0].classes:
        for phase in columns[0].phases:
            cells = (column.cell(metric, class_name, phase) for column in columns)
            texts = tuple(mean_sd(cell.mean, cell.sd, digits) for cell in cells)
            label = f"{CLASSES.get(class_name, class_name)}, {PHASES.get(phase, phase)}"
            rows.append(Row(label, texts))
    return rows


def mean_dice(sums: OverlapSums | None, class_name: str) -> float:
    """Return the mean Dice over all masks of a class, both phases; nan without any."""
    if sums is None or class_name not in sums.classes:
        return math.nan
    return sums.pooled_mean("dice", class_name)


def arm_overlap_table(results: Results) -> Table | None:
    """Return mean Dice by way of training, internal and external."""
    columns: list[Column] = []
    rows: list[Row] = []
    for role, group in (("train", "Internal hold-out"), ("external", "External")):
        columns.extend(Column(name, group, role == "external") for name in CLASSES)
    for arm in results.arms:
        sums = [pooled(results, arm, role).overlap for role in ROLES]
        values = [mean_dice(part, name) for part in sums for name in CLASSES]
        if not all(map(math.isnan, values)):
            rows.append(Row(arm_label(arm), tuple(number(value, 3) for value in values)))
    return Table(tuple(columns), tuple(rows)) if len(rows) > 1 else None


def agreement_table(results: Results) -> Table | None:
    """Return bias, limits of agreement and correlation of every measured quantity."""
    arm = main_arm(results)
    titles = ("Patients", "Bias", "95 % limits of agreement", "MAE", "CCC", "r")
    rows: list[Row] = []
    for role, title in zip(ROLES, ("Internal hold-out", "External hospitals"), strict=True):
        sums = pooled(results, arm, role).agreement if arm else {}
        if not sums:
            continue
        rows.append(Row(title, heading=True))
        for name, part in sums.items():
            quantity = QUANTITIES[name]
            cells = (
                str(part.n),
                number(part.bias, 1),
                interval(*part.limits, 1),
                number(part.mae, 1),
                number(part.concordance, 3),
                number(part.correlation, 3),
            )
            rows.append(Row(f"{quantity.label}, {quantity.unit}", cells))
    return Table(tuple(map(Column, titles)), tuple(rows)) if rows else None


def arm_rows(results: Results) -> list[ForestRow]:
    """Return the pair counts of every arm, of the Cox regression, and last the oracle's."""
    rows = []
    for arm in results.arms:
        internal, external = (pooled(results, arm, role).pairs for role in ROLES)
        rows.append(ForestRow(arm_label(arm), internal, external))
    main = main_arm(results)
    if main is not None:
        internal, external = (pooled(results, main, role).regression_pairs for role in ROLES)
        rows.append(ForestRow("Cox regression", internal, external))
    if results.oracle and results.oracle.pairs:
        truth = {site: SiteValidation(pairs=p) for site, p in results.oracle.pairs.items()}
        oracle = results.model_copy(update={"arms": {"pooled": Arm(sites=truth)}})
        internal, external = (pooled(oracle, "pooled", role).pairs for role in ROLES)
        rows.append(ForestRow("Oracle (true hazard)", internal, external, oracle=True))
    return [row for row in rows if _usable(row.internal) or _usable(row.external)]


def _usable(pairs: PairCounts | None) -> bool:
    return pairs is not None and pairs.comparable > 0


PAIR_TITLES = ("C-index", "95 % interval", "Patients", "Events", "Pairs")


def _pair_cells(pairs: PairCounts | None) -> tuple[str, ...]:
    if pairs is None or not pairs.comparable:
        return (DASH,) * len(PAIR_TITLES)
    counts = (pairs.num_patients, pairs.num_events, pairs.comparable)
    return (
        number(pairs.c_index, 3),
        interval(*pairs.interval(), 2),
        *(f"{value:,}" for value in counts),
    )


def _noised_cells(sent: SiteEvaluation | None) -> tuple[str, ...]:
    table = sent.score_table if sent else None
    if table is None or not table.num_patients:
        return ()
    counts = (f"{table.num_patients:,}", f"{table.num_events:,}")
    return (number(harrell_c(table).value, 3), DASH, *counts, DASH)


def concordance_table(results: Results) -> Table | None:
    """Return the C-index of every way of training, internal and external."""
    rows = arm_rows(results)
    if not rows:
        return None
    columns = [Column(title, "Internal hold-out") for title in PAIR_TITLES]
    columns += [Column(title, "External", external=True) for title in PAIR_TITLES]
    body = (Row(row.label, _pair_cells(row.internal) + _pair_cells(row.external)) for row in rows)
    return Table(tuple(columns), tuple(body))


def concordance_by_hospital(results: Results) -> Table | None:
    """Return the main arm's C-index at every hospital, with the oracle's where it is known."""
    arm = main_arm(results)
    sites = results.arms[arm].sites if arm else {}
    oracle = results.oracle
    columns = [*map(Column, PAIR_TITLES)]
    if oracle and oracle.pairs:
        columns.append(Column("Oracle, same patients"))
    if oracle and oracle.closed_form:
        columns.append(Column("Oracle, closed form"))
    rows = []
    for hospital in sorted(results.hospitals, key=lambda hospital: hospital.role == "external"):
        pairs = sites[hospital.name].pairs if hospital.name in sites else None
        cells = _pair_cells(pairs)
        if oracle and oracle.pairs:
            truth = oracle.pairs.get(hospital.name)
            cells += (number(truth.c_index if truth else None, 3),)
        if oracle and oracle.closed_form:
            cells += (number(oracle.closed_form.get(hospital.name), 3),)
        label = f"{hospital.name} (external)" if hospital.role == "external" else hospital.name
        if _usable(pairs):
            rows.append(Row(label, cells))
        elif hospital.noise_sd is not None and hospital.name in sites:
            blank = (DASH,) * (len(cells) - len(PAIR_TITLES))
            told = _noised_cells(sites[hospital.name].evaluation)
            rows += [Row(f"{label}, from a noised table", told + blank)] if told else []
    return Table(tuple(columns), tuple(rows)) if rows else None
