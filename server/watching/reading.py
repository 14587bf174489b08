"""From a run's folder to its state: the one reader behind the terminal and the browser."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from server.missed import MissedRounds, missed_in_a_row
from server.progress import ENDED, JOINING, STAGE
from server.results import ALL_TOGETHER
from server.turns import counted_rounds
from server.watching.files import STAGES, RunFiles, read_files
from server.watching.hospitals import Step, hospital_states, is_overdue, newest_step
from server.watching.log import log_lines
from server.watching.state import HospitalState, RunState, StageState, Status
from server.watching.training import curves, figures, rounds, spent

__all__ = ["state_of", "state_of_files"]

QUESTIONS = {
    "query.survey": "Hospitals are being asked what data they have",
    "query.measure": "Hospitals are measuring their own studies",
    "query.scores": "Risk groups are being agreed on",
}


def state_of(run_dir: Path, *, now: datetime | None = None) -> RunState:
    """Return what there is to know of a run, from its folder alone; nothing is written.

    Parameters
    ----------
    run_dir : Path
        A run's own folder, or ``runs/<id>`` of a server's directory.
    now : datetime, optional
        By which a round is judged late; the clock's, if not given.

    Raises
    ------
    ConfigError
        If there is no run in the folder.
    """
    return state_of_files(read_files(run_dir), run_dir.resolve().name, now or datetime.now(UTC))


def state_of_files(files: RunFiles, folder: str, now: datetime) -> RunState:
    """Return the state that a run's files tell of.

    Parameters
    ----------
    folder : str
        What the run is called where its study is not known yet.
    """
    step, histories = newest_step(files.steps), files.histories
    done_rounds = tuple(each for stage in histories for each in rounds(histories[stage]))
    newest = histories[max(histories, key=STAGES.index)] if histories else []
    status, code, said = _status(files)
    over = status not in ("waiting", "running")
    overdue = not over and is_overdue(step, done_rounds, now)
    hospitals = hospital_states(
        files.study,
        step,
        _missed(files, newest, status),
        counted_rounds(newest),
        overdue=overdue,
        over=over,
        finished=status.startswith("finished"),
        revoked=files.revoked,
    )
    budget = spent(newest)
    together, delta = budget.get(ALL_TOGETHER, (None, None))
    return RunState(
        name=files.study.name if files.study else folder,
        status=status,
        sentence=said or _going_on(step, overdue),
        code=code,
        done=step.done,
        total=step.total,
        began=step.began.isoformat() if step.began else "",
        updated=str(files.steps[-1].get("time", "")) if files.steps else "",
        stages=_stages(files, status),
        hospitals=tuple(_with_budget(each, budget) for each in hospitals),
        rounds=done_rounds,
        curves=tuple(c for stage in histories for c in curves(stage, histories[stage])),
        # Results of an earlier run of the folder say nothing of one under way.
        figures=figures(files.results) if status.startswith("finished") else (),
        epsilon=together,
        delta=delta,
        log=log_lines(files.events),
        has_report=files.has_report,
    )


def _missed(
    files: RunFiles, newest: list[dict[str, Any]], status: Status
) -> dict[str, MissedRounds]:
    if not status.startswith("finished") or files.results is None:
        return missed_in_a_row(newest)
    return {spell.hospital: spell for spell in files.results.missed if spell.to_the_end}


def _with_budget(
    hospital: HospitalState, budget: Mapping[str, tuple[float, float | None]]
) -> HospitalState:
    epsilon, delta = budget.get(hospital.name, (None, None))
    return replace(hospital, epsilon=epsilon, delta=delta)


def _status(files: RunFiles) -> tuple[Status, str, str]:
    """Return the status, and code and sentence of how the run ended."""
    last: Mapping[str, Any] = files.steps[-1] if files.steps else {}
    wanted = files.wanted.get("state")
    if last.get("what") == ENDED and last.get("note") == "finished":
        return _finished(files)
    if wanted == "stopped":
        return "stopped", "", "The run was stopped by its coordinator; it can be resumed."
    if wanted == "failed":
        code = str(last.get("code", "")) if last.get("what") == ENDED else ""
        said = str(files.wanted.get("sentence", "") or last.get("sentence", ""))
        return "failed", code, said
    if last.get("what") == ENDED and wanted != "running":
        how: Status = "stopped" if last.get("note") == "stopped" else "failed"
        return how, str(last.get("code", "")), str(last.get("sentence", ""))
    if not files.steps and files.results is not None:
        # A run written before runs told of their end.
        return _finished(files)
    return ("running" if files.steps else "waiting"), "", ""


def _finished(files: RunFiles) -> tuple[Status, str, str]:
    missing = files.results.finished_without if files.results else ()
    if missing:
        said = f"The study is finished, but without all of {' and '.join(missing)}: see below."
        return "finished with missing hospitals", "", said
    return "finished", "", "The study is finished; its report is ready."


def _stages(files: RunFiles, status: Status) -> tuple[StageState, ...]:
    names = files.study.stages if files.study else ()
    if status.startswith("finished"):
        return tuple(StageState(name, "done") for name in names)
    at = -1
    for line in files.steps:
        if line.get("what") == JOINING:
            at = -1
        elif line.get("what") == STAGE and line.get("note") in names:
            at = names.index(line["note"])
    return tuple(
        StageState(name, "done" if index < at else "now" if index == at else "ahead")
        for index, name in enumerate(names)
    )


def _going_on(step: Step, overdue: bool) -> str:
    if not step.what:
        return "The run has not begun yet."
    answered = len(step.asked) - len(step.awaited)
    if step.what == JOINING:
        what = "Waiting for hospitals to join"
    elif step.round is not None:
        what = f"Round {step.round} of {step.total} of the stage {step.what}"
    else:
        topic = step.what.partition(".")[2].replace("_", " ")
        what = QUESTIONS.get(step.what, f"Hospitals are being asked for '{topic}'")
    said = f"{what}: {answered} of {len(step.asked)} answered"
    if step.awaited:
        names = ", ".join(step.awaited[:3]) + (" and others" if len(step.awaited) > 3 else "")
        late = ", which takes longer than usual" if overdue else ""
        said += f", waiting for {names}{late}"
    return said + "."
