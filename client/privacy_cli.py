"""``concors-client spent`` and ``plan-privacy``: what was spent of privacy, and what would be."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from client.policy import load_policy, site_ledger
from client.sentences import sentences
from client.site import load_site
from privacy import planning
from privacy.accountant import epsilon
from privacy.ledger import Entry, Ledger
from privacy.policy import PrivacyPolicy, agree
from protocol.config import Preprocessing, Study, load_study
from protocol.errors import PrivacyError

__all__ = ["plan_privacy_command", "spent_command"]

NO_POLICY = (
    "this hospital has no privacy policy, so it trains without noise and spends nothing; write the "
    "section privacy of policy.yaml beside site.yaml to have one."
)
TARGETS = (1.0, 3.0, 8.0)
NOISE_FACTORS = (0.5, 1.0, 1.5, 2.0)
SIZES = (50, 100, 200, 500, 1000)

console = Console()


def spent_command(
    site_dir: Annotated[Path, typer.Argument(help="Directory with site.yaml.")],
    plot: Annotated[
        Path | None, typer.Option(help="Also draw epsilon against reservations, as SVG.")
    ] = None,
) -> None:
    """Say what every study has spent of the patients' privacy, and what remains.

    Exit code 1 if the ledger was altered.
    """
    with sentences():
        config = load_site(site_dir)
        policy = load_policy(site_dir, config).privacy
        ledger = site_ledger(site_dir)
        entries = ledger.entries()
        if not entries:
            console.print(f"{config.name}: nothing was spent.")
            return
        delta = policy.delta if policy else entries[-1].delta
        console.print(_releases(config.name, entries))
        console.print(_budgets(ledger, entries, policy, delta))
        if any(not entry.committed for entry in entries):
            console.print("A reservation that was never finished counts like any other.")
        if plot is not None:
            # matplotlib takes seconds to load.
            from client.privacy_plot import draw_spent

            draw_spent(plot, entries, policy, delta)
            console.print(f"plot: {plot}")


def _releases(name: str, entries: Sequence[Entry]) -> Table:
    """One row for each study, purpose, noise and sampling rate."""
    table = Table(title=f"{name}: noised releases")
    for head in ("study", "purpose"):
        table.add_column(head)
    for head in ("reservations", "unfinished", "steps", "sigma", "q"):
        table.add_column(head, justify="right")
    rows: dict[tuple[str, str, float, float], list[Entry]] = {}
    for entry in entries:
        spend = entry.spend
        key = (entry.study, entry.purpose, spend.noise_multiplier, spend.sampling_rate)
        rows.setdefault(key, []).append(entry)
    for (study, purpose, sigma, rate), same in rows.items():
        unfinished = sum(not entry.committed for entry in same)
        steps = sum(entry.spend.num_steps for entry in same)
        counts = (str(len(same)), str(unfinished), str(steps), f"{sigma:g}", f"{rate:g}")
        table.add_row(study, purpose, *counts)
    return table


def _budgets(
    ledger: Ledger, entries: Sequence[Entry], policy: PrivacyPolicy | None, delta: float
) -> Table:
    table = Table(title=f"Epsilon at delta {delta:g}")
    table.add_column("of")
    for head in ("spent", "cap", "remains", "rounds that still fit"):
        table.add_column(head, justify="right")
    studies: list[str | None] = [*dict.fromkeys(entry.study for entry in entries), None]
    for study in studies:
        spent = ledger.spent(delta, study)
        row = [study or "everything", f"{spent:.3f}"]
        if policy is None:
            row += ["no policy", "", ""]
        else:
            cap = policy.study_epsilon if study else policy.lifetime_epsilon
            history = [e.spend for e in entries if study in (None, e.study)]
            left = planning.rounds_left(
                history, planning.training(policy, 1), cap, delta, policy.max_rounds
            )
            most = " or more" if left == policy.max_rounds else ""
            row += [f"{cap:g}", f"{max(0.0, cap - spent):.3f}", f"{left}{most}"]
        table.add_row(*row)
    return table


def plan_privacy_command(
    site_dir: Annotated[Path, typer.Argument(help="Directory with site.yaml.")],
    config: Annotated[
        Path | None, typer.Option(help="Study file; its stages, rounds and wishes are planned.")
    ] = None,
    patients: Annotated[
        int | None,
        typer.Option(min=1, help="Patients that train; read from the hospital's data if left out."),
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(min=1, help="Rounds of a stage; else the study's or max_rounds.")
    ] = None,
    answers: Annotated[
        int, typer.Option(min=0, help="Noised vectors of sums that are answered besides.")
    ] = 0,
) -> None:
    """Show what a study would cost in privacy before any of it runs, and what stays unprotected."""
    with sentences():
        site = load_site(site_dir)
        own = load_policy(site_dir, site).privacy
        if own is None:
            raise PrivacyError(NO_POLICY)
        study = load_study(config) if config else None
        policy = (agree(own, study.privacy) if study else None) or own
        stages = _stages(study, policy, rounds)
        num_patients = patients or _count(site_dir, study)
        most = max(stages.values(), default=policy.max_rounds)
        console.print(_study_table(site_dir, study, policy, stages, answers))
        if stages:
            console.print(_noise_table(policy, most))
            console.print(_needed_table(policy, stages, answers))
            console.print(_cohort_table(policy, num_patients, most))
        if policy.delta * num_patients > 0.1:
            console.print(
                f"[yellow]delta {policy.delta:g} is large for {num_patients} patients[/]: it "
                f"should be well below 1 / patients, for example {0.1 / num_patients:.1g}."
            )
        _print_utility(list(stages))
    console.print(f"\n[bold]Protected[/] {planning.PROTECTED}\n\n[bold]Not protected[/]")
    for sentence in planning.NOT_PROTECTED:
        console.print(f"- {sentence}", highlight=False)


def _stages(study: Study | None, policy: PrivacyPolicy, rounds: int | None) -> dict[str, int]:
    """Return the stages that train a network on patients, with the rounds that are allowed."""
    planned = {"one stage": policy.max_rounds}
    if study is not None:
        whole = {"segment": study.segment.rounds, "prognosis": study.prognosis.rounds}
        planned = {stage: count for stage, count in whole.items() if stage in study.stages}
    allowed = {}
    for stage, count in planned.items():
        allowed[stage] = min(rounds or count, policy.max_rounds)
        if (rounds or count) > policy.max_rounds:
            console.print(
                f"[yellow]{stage}: {rounds or count} rounds are asked for[/], and the policy "
                f"allows {policy.max_rounds}; the hospital declines the others."
            )
    return allowed


def _count(site_dir: Path, study: Study | None) -> int:
    from client.cohort import load_cohort

    preprocessing = study.preprocessing if study else Preprocessing()
    with console.status("reading the hospital's data"):
        return len(load_cohort(site_dir, preprocessing).patients)


def _study_table(
    site_dir: Path,
    study: Study | None,
    policy: PrivacyPolicy,
    stages: dict[str, int],
    answers: int,
) -> Table:
    table = Table(title=f"What would be spent, epsilon at delta {policy.delta:g}")
    table.add_column("of")
    for head in ("releases", "epsilon", "cap"):
        table.add_column(head, justify="right")
    parts = {f"{stage}, {n} rounds": [planning.training(policy, n)] for stage, n in stages.items()}
    if answers:
        parts[f"{answers} noised answers"] = planning.answers(policy, answers)
    for name, part in parts.items():
        steps = sum(spend.num_steps for spend in part)
        table.add_row(name, str(steps), f"{epsilon(part, policy.delta):.3f}", "")
    planned = [spend for part in parts.values() for spend in part]
    entries = site_ledger(site_dir).entries()
    before = [e.spend for e in entries if study and e.study == study.name]
    rows = (
        ("the study in all", before, policy.study_epsilon),
        (
            "everything, with what was spent before",
            [e.spend for e in entries],
            policy.lifetime_epsilon,
        ),
    )
    for name, history, cap in rows:
        value = epsilon([*history, *planned], policy.delta)
        table.add_row(name, "", _against(value, cap), f"{cap:g}")
    return table


def _against(value: float, cap: float) -> str:
    return f"[red]{value:.3f}, declined before the end[/]" if value > cap else f"{value:.3f}"


def _noise_table(policy: PrivacyPolicy, most: int) -> Table:
    rounds = sorted({max(1, most // 4), max(1, most // 2), most})
    noises = [round(policy.noise_multiplier * factor, 6) for factor in NOISE_FACTORS]
    table = Table(title="Epsilon of one stage (q and steps a round as in the policy)")
    table.add_column("noise multiplier", justify="right")
    for count in rounds:
        table.add_column(f"{count} rounds", justify="right")
    for noise, values in planning.by_noise(policy, noises, rounds):
        told = [_against(value, policy.study_epsilon).partition(",")[0] for value in values]
        closed = [f"{text}[/]" if text.startswith("[red]") else text for text in told]
        mark = " (policy)" if noise == policy.noise_multiplier else ""
        table.add_row(f"{noise:g}{mark}", *closed)
    return table


def _needed_table(policy: PrivacyPolicy, stages: dict[str, int], answers: int) -> Table:
    total, beside = sum(stages.values()), planning.answers(policy, answers)
    table = Table(title=f"Noise for all {total} rounds of the study")
    for head in ("epsilon", "noise multiplier"):
        table.add_column(head, justify="right")
    for target in TARGETS:
        noise = planning.noise_needed(policy, target, total, beside)
        table.add_row(f"{target:g}", "not to be reached" if noise is None else f"{noise:g}")
    return table


def _cohort_table(policy: PrivacyPolicy, num_patients: int, most: int) -> Table:
    table = Table(title=f"By number of patients, {most} rounds")
    heads = ("patients", "in a step", "noise / clip norm", "q for as many in a step as here")
    for head in (*heads, "epsilon then"):
        table.add_column(head, justify="right")
    for row in planning.by_cohort(policy, num_patients, SIZES, most):
        here = " (here)" if row.num_patients == num_patients else ""
        table.add_row(
            f"{row.num_patients}{here}",
            f"{row.per_step:.1f}",
            f"{row.noise:.3g}",
            f"{row.sampling_rate:.3g}",
            f"{row.epsilon:.3f}",
        )
    return table


def _print_utility(stages: list[str]) -> None:
    utility = planning.read_utility()
    points = [p for p in utility.points if p.stage in stages or "one stage" in stages]
    if not points:
        console.print(
            "What the noise costs in accuracy is not known: no measurement on the phantom comes "
            "with this version. Try it there (concors-sim) before spending on patients."
        )
        return
    table = Table(title=f"Measured on the phantom by {utility.source}")
    heads = ("stage", "metric", "patients", "epsilon", "with noise", "without", "seeds")
    for head in heads:
        table.add_column(head)
    for point in points:
        values = (f"{point.epsilon:g}", f"{point.value:.3f}", f"{point.value_without:.3f}")
        counts = (point.stage, point.metric, str(point.num_patients))
        table.add_row(*counts, *values, str(point.num_seeds))
    console.print(table)
