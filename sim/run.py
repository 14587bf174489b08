"""A whole consortium on one machine: hospitals, every arm, one report."""

from collections.abc import Mapping
from concurrent.futures import Future, as_completed
from pathlib import Path

from rich.console import Console

from protocol.config import Study
from protocol.errors import ConfigError
from server.report.write import write_report
from server.results import Results, load_results, save_results
from server.sealing import seal_run
from server.starting import begin_from
from sim.acdc import make_acdc_hospitals
from sim.arms import Arm, make_arms
from sim.config import PhantomConfig
from sim.engines.choice import Engine, run_on
from sim.examples import examples
from sim.hospitals import make_hospitals
from sim.intake import read_all
from sim.introductions import introduce
from sim.oracle import oracle
from sim.progress import Watch, bars
from sim.simulation import Simulation, real_data
from sim.survival_data import make_survival_hospitals
from sim.workers import worker_processes

__all__ = ["run"]


def run(
    study: Study,
    simulation: Simulation,
    run_dir: Path,
    *,
    engine: Engine = "local",
    console: Console | None = None,
    start_from: Path | None = None,
) -> Path:
    """Make the hospitals, run every arm and write the report.

    Parameters
    ----------
    study, simulation : Study, Simulation
        The two sections of the study file.
    run_dir : Path
        Everything is written here; an interrupted run goes on where it stopped.
    engine : str
        How the federated arm runs; comparators always run in-process.
    start_from : Path, optional
        Folder of a finished run; the networks of every arm begin from its final weights.

    Returns
    -------
    Path
        The report, one self-contained HTML file.

    Raises
    ------
    ConcorsError
        If hospitals cannot be made or read, or an arm fails.
    """
    console = console or Console()
    sites = _hospitals(study, simulation, run_dir / "hospitals", console)
    read_all(sites, study, simulation.processes, console)
    arms = make_arms(study, sites, run_dir, simulation.comparators)
    if start_from is not None:
        study = begin_from(study, start_from, [arm.run_dir for arm in arms])
        arms = make_arms(study, sites, run_dir, simulation.comparators)
    _run_arms(arms, engine, simulation.processes, console)
    results = _combined(study, simulation, arms, sites)
    save_results(results, run_dir / "results.json")
    report = run_dir / "report.html"
    pictures = examples(study, sites, run_dir, simulation.examples)
    write_report(results.model_dump(), report, examples=pictures)
    # The federated arm sealed what it found itself; this is what it was compared with.
    seal_run(run_dir, study, results)
    return report


def _hospitals(
    study: Study, simulation: Simulation, folder: Path, console: Console
) -> dict[str, Path]:
    if simulation.phantom is not None:
        names = [hospital.name for hospital in simulation.phantom.hospitals]
        sites = {name: folder / name for name in names}
        if not (folder / "truth").is_dir():
            _make_phantoms(simulation.phantom, folder, study.seed, simulation.processes, console)
    elif simulation.survival is not None:
        sites = make_survival_hospitals(
            real_data() / "survival", folder, simulation.survival, study.seed
        )
    else:
        archive = real_data() / (simulation.acdc.folder if simulation.acdc else "acdc")
        sites = {site.name: site for site in make_acdc_hospitals(archive, folder, threads=1)}
    absent = sorted(set(study.hospitals.all) - set(sites))
    if absent:
        raise ConfigError(
            f"The study names {absent[0]}, which the simulation does not make; it makes "
            f"{', '.join(sites)}."
        )
    if study.secure_aggregation is not None:
        introduce([sites[name] for name in study.hospitals.all])
    return {name: sites[name] for name in study.hospitals.all}


def _make_phantoms(
    phantom: PhantomConfig, folder: Path, seed: int, processes: int, console: Console
) -> None:
    with bars(console) as progress:
        tasks = {
            hospital.name: progress.add_task(f"making {hospital.name}", total=hospital.num_patients)
            for hospital in phantom.hospitals
        }

        def show(name: str, done: int, total: int) -> None:
            progress.update(tasks[name], completed=done, total=total)

        make_hospitals(phantom, folder, seed, processes, show)


def _run_arms(arms: list[Arm], engine: Engine, processes: int, console: Console) -> None:
    """Run the arms, at most ``processes`` at once, each in a process of its own."""
    with (
        Watch({arm.name: arm.run_dir for arm in arms}, console) as watch,
        worker_processes(processes) as pool,
    ):
        running: dict[Future[None], Arm] = {}
        for arm in arms:
            on: Engine = engine if arm.name == "federated" else "local"
            running[pool.submit(run_on, on, arm.study_file, arm.run_dir, arm.sites)] = arm
        try:
            for future in as_completed(running):
                future.result()
                watch.finished(running[future].name)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _combined(
    study: Study, simulation: Simulation, arms: list[Arm], sites: Mapping[str, Path]
) -> Results:
    """Return the federated arm's results with the other arms and the oracle beside them."""
    by_arm = {arm.name: load_results(arm.run_dir / "results.json") for arm in arms}
    first = by_arm["federated"]
    shown = set(study.hospitals.validating)
    judged = {
        name: {
            "sites": {
                site: validation
                for site, validation in results.arms["federated"].sites.items()
                if site in shown
            },
            "evaluation": results.arms["federated"].evaluation,
        }
        for name, results in by_arm.items()
    }
    pairs = [s for s, found in first.arms["federated"].sites.items() if found.pairs is not None]
    phantom, horizon = simulation.source == "phantom", first.study.horizon_months
    return Results.of(
        {
            **first.model_dump(),
            "study": {**first.study.model_dump(), "simulated": phantom},
            "arms": judged,
            "oracle": oracle(study, sites, pairs, horizon) if phantom and horizon else None,
        }
    )
