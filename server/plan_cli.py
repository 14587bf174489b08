"""``concors-server plan``: the sample-size planner on the screen."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from protocol.errors import ConfigError

if TYPE_CHECKING:
    from server.plan import Plan
    from server.sample_size import Followed

__all__ = ["plan"]


def plan(
    parameters: Annotated[int, typer.Option(help="Coefficients the model estimates.")],
    results: Annotated[
        Path | None, typer.Option(help="results.json of a study with the stage survey.")
    ] = None,
    patients: Annotated[int | None, typer.Option(help="Training patients.")] = None,
    events: Annotated[int | None, typer.Option(help="Events among them.")] = None,
    person_years: Annotated[float | None, typer.Option(help="Their follow-up, years.")] = None,
    external_patients: Annotated[int, typer.Option(help="External patients.")] = 0,
    external_events: Annotated[int, typer.Option(help="Events among them.")] = 0,
    horizon_years: Annotated[float, typer.Option(help="Risk is predicted for, years.")] = 5.0,
    r2: Annotated[
        float | None, typer.Option(help="Expected Cox-Snell R2; else 15 % of the largest.")
    ] = None,
    c_index: Annotated[float, typer.Option(help="Expected external C-index.")] = 0.7,
) -> None:
    """Say whether a consortium has enough patients; exit code 1 if it has not."""
    # Here, as SciPy takes a second to load, which every other command would wait for.
    from server.plan import Aims, followed_by_role, make_plan
    from server.results import load_results

    aims = Aims(parameters, horizon_years, r2, c_index)
    if results is not None:
        training, external, withheld = followed_by_role(load_results(results).hospitals)
    else:
        training, external = _given(
            patients, events, person_years, external_patients, external_events
        )
        withheld = 0
    made = make_plan(_together(training), external, aims)
    console = Console()
    console.print(_table(made))
    for sentence in made.sentences:
        console.print(sentence, soft_wrap=True, highlight=False)
    if withheld:
        console.print(
            f"{withheld} hospital(s) withheld a small count and are left out.", highlight=False
        )
    if not made.answers:
        raise typer.Exit(1)


def _given(
    patients: int | None,
    events: int | None,
    person_years: float | None,
    external_patients: int,
    external_events: int,
) -> "tuple[list[Followed], list[Followed]]":
    from server.sample_size import Followed

    if patients is None or events is None or person_years is None:
        raise ConfigError(
            "The planner has no patients to plan with; give --results, or --patients, --events "
            "and --person-years."
        )
    training = Followed(patients, events, person_years)
    external = []
    if external_patients:
        years = external_patients * training.mean_years
        external.append(Followed(external_patients, external_events, years))
    return [training], external


def _together(hospitals: "Sequence[Followed]") -> "Followed":
    from server.sample_size import Followed

    if not hospitals:
        raise ConfigError(
            "No training hospital told its counts; ask for follow-up, or for larger hospitals."
        )
    return Followed(
        sum(hospital.patients for hospital in hospitals),
        sum(hospital.events for hospital in hospitals),
        math.fsum(hospital.person_years for hospital in hospitals),
    )


def _table(made: "Plan") -> Table:
    table = Table(title="Sample size", show_header=False)
    table.add_row("training patients, events", f"{made.patients}, {made.events}")
    table.add_row("events per parameter", f"{made.events_per_parameter:.1f}")
    table.add_row(
        "Cox-Snell R-squared, expected and largest", f"{made.r2:.3f}, {made.largest_r2:.3f}"
    )
    for criterion, number in made.patients_needed.items():
        table.add_row(f"patients for {criterion}", str(number))
    table.add_row("events in the most of these", str(made.events_needed))
    table.add_row("expected shrinkage of the coefficients", f"{made.shrinkage:.2f}")
    table.add_row("external events", str(made.external_events))
    if made.c_interval is not None:
        low, high = made.c_interval
        table.add_row("95 % interval of the external C-index", f"{low:.2f} to {high:.2f}")
    return table
