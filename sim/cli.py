"""``concors-sim``: phantom hospitals, and a whole consortium in one process."""

from pathlib import Path
from typing import Annotated, get_args

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from deployment.logs import configure
from protocol.errors import ConcorsError
from protocol.validation_config import Design
from sim.engines.choice import Engine

__all__ = ["app", "main"]

DESIGNS: tuple[str, ...] = get_args(Design)
app = typer.Typer(
    name="concors-sim", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
)


@app.callback()
def _root() -> None:
    """Phantom hospitals, and a whole consortium in one process."""
    configure()


@app.command("make-hospitals")
def make_hospitals_command(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Directory to write to.")],
    config: Annotated[Path, typer.Option(help="YAML file with a simulation.phantom section.")],
    seed: Annotated[int, typer.Option(min=0, help="Determines every byte.")],
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
) -> None:
    """Write phantom hospitals to OUT, one directory each, and the truth to OUT/truth."""
    # Each command imports what it needs: the processes that a command starts import this module.
    from sim.config import load_phantom_config
    from sim.hospitals import make_hospitals

    console = Console(stderr=True)
    phantom = load_phantom_config(config)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("patients"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        bars = {
            hospital.name: progress.add_task(hospital.name, total=hospital.num_patients)
            for hospital in phantom.hospitals
        }

        def advance(hospital: str, done: int, total: int) -> None:
            progress.update(bars[hospital], completed=done, total=total)

        make_hospitals(phantom, out, seed, workers, advance)
    console.print(f"{len(phantom.hospitals)} hospitals written to {out}", highlight=False)


@app.command("run")
def run_command(
    config: Annotated[Path, typer.Argument(help="Study file with a simulation section.")],
    out: Annotated[
        Path | None, typer.Option(help="Run folder; by default runs/<study>-<seed>.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Instead of the study's seed.")] = None,
    engine: Annotated[
        Engine, typer.Option(help="How the federated arm runs: local, ray or deployment.")
    ] = "local",
    start_from: Annotated[
        Path | None,
        typer.Option(help="Folder of a finished run whose networks training begins from."),
    ] = None,
) -> None:
    """Make hospitals, train federated and the comparators, validate, write the report."""
    from sim.run import run
    from sim.simulation import load_simulation

    console = Console()
    study, simulation = load_simulation(config)
    if seed is not None:
        study = study.model_copy(update={"seed": seed})
    folder = out or Path("runs") / f"{study.name}-{study.seed}"
    report = run(study, simulation, folder, engine=engine, console=console, start_from=start_from)
    console.print(f"report: {report}", highlight=False, soft_wrap=True)


@app.command("validate")
def validate_command(
    config: Annotated[Path, typer.Argument(help="Study file with a simulation section.")],
    design: Annotated[
        list[str],
        typer.Option(help=f"One of {', '.join(DESIGNS)}; may be given several times."),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Run folder; by default runs/<study>-<seed>.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Instead of the study's seed.")] = None,
    engine: Annotated[
        Engine, typer.Option(help="How the study runs: local, ray or deployment.")
    ] = "local",
) -> None:
    """Run the study without comparators, then validation designs; one report has all of it.

    In the folder of a finished run only the designs are left to train.
    """
    from protocol.config import Study
    from protocol.yaml_files import parse
    from sim.run import run
    from sim.simulation import load_simulation

    console = Console()
    study, simulation = load_simulation(config)
    values = study.model_dump(mode="json", by_alias=True)
    values["validate"]["designs"] = design
    if seed is not None:
        values["seed"] = seed
    study = parse(Study, values, config.name)
    folder = out or Path("runs") / f"{study.name}-{study.seed}"
    simulation = simulation.model_copy(update={"comparators": ()})
    report = run(study, simulation, folder, engine=engine, console=console)
    console.print(f"report: {report}", highlight=False, soft_wrap=True)


def main() -> None:
    """Run the command line; an error is one sentence on stderr and exit code 2."""
    try:
        app()
    except ConcorsError as error:
        Console(stderr=True).print(f"{error.code}: {error.sentence}", style="red", highlight=False)
        raise SystemExit(2) from error


if __name__ == "__main__":
    main()
