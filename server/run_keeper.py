"""Sees to it that with every run happens what its ``run.json`` wants, whatever was killed before.

A run that was killed is submitted to Flower again, into the same folder: the study goes on at its
newest checkpoint, and what hospitals answered already they answer again with the same bytes.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from deployment.control import Control
from deployment.flower import program
from deployment.private_files import write_private
from deployment.processes import Processes
from deployment.tasks import Task, Tasks
from server.consortium import Consortium
from server.outcome import Outcome, read_outcome
from server.run_folders import STUDY_FILE
from server.run_state import State, change, read, runs

__all__ = ["RunKeeper"]

HOUR = timedelta(hours=1)
# Seconds between a kill and the next attempt: at once, then longer each time.
WAITS_S = (0.0, 2.0, 8.0, 30.0, 60.0)


class RunKeeper:
    """The runs of a consortium while its SuperLink is up.

    Parameters
    ----------
    consortium : Consortium
        Whose runs.
    processes : Processes
        Where the server apps run; each is called ``run-<folder>``.
    address : str
        ``host:port`` of the SuperLink's door for this machine.
    bundle : Path
        Directory of the bundle to submit.
    variables : mapping
        Environment of the server apps.
    private : Path
        A directory only its owner may enter.
    say : callable
        Tells the operator one line.
    server_app : str
        The program that runs a server app, given what Flower's own is given.
    """

    def __init__(
        self,
        consortium: Consortium,
        processes: Processes,
        *,
        address: str,
        bundle: Path,
        variables: Mapping[str, str],
        private: Path,
        say: Callable[[str], None],
        server_app: str | None = None,
    ) -> None:
        self._consortium = consortium
        self._processes = processes
        self._address = address
        self._bundle = bundle
        self._variables = variables
        self._private = private
        self._say = say
        self._server_app = server_app or program("flwr-serverapp")
        # Attempts of this supervisor; those of one before it died with it.
        self._own: set[int] = set()
        self._not_before: dict[str, float] = {}

    def look(self, control: Control, tasks: Tasks) -> None:
        """Do what is to be done now.

        Raises
        ------
        httpx.HTTPError
            If the SuperLink does not answer; looking again later continues.
        """
        for folder in runs(self._consortium.runs):
            state = read(folder)
            if state.flower_run:
                self._look_after(folder, state, control)
            elif state.state == "running":
                self._submit(folder, state, control)
        # Asked only when there is something to be had: a run whose process was not started yet.
        while self._awaited() and (task := tasks.acquire()) is not None:
            self._start(task, control)

    def _awaited(self) -> bool:
        names, folders = self._processes.names(), runs(self._consortium.runs)
        return any(read(f).flower_run and _process_name(f) not in names for f in folders)

    def _submit(self, folder: Path, state: State, control: Control) -> None:
        if time.monotonic() < self._not_before.get(folder.name, 0.0):
            return
        flower_run = control.submit(self._bundle, {})
        self._own.add(flower_run)
        change(folder, lambda old: replace(old, flower_run=flower_run, attempts=old.attempts + 1))
        word = "started" if state.attempts == 0 else "taken up again"
        self._say(f"run {folder.name}: {word}")

    def _start(self, task: Task, control: Control) -> None:
        """Start the server app of a run that Flower gives out."""
        folders = runs(self._consortium.runs)
        folder = next((f for f in folders if read(f).flower_run == task.run_id), None)
        if folder is None:
            # Submitted in the instant before a crash, and so never noted; or by somebody else.
            control.stop(task.run_id)
            return
        name = _process_name(folder)
        token = write_private(self._private / f"{name}.token", task.token.encode())
        command = [self._server_app, "--runtime-api-address", self._address]
        command += ["--root-certificates", str(self._consortium.authority)]
        command += ["--token-file", str(token)]
        paths = {"CONCORS_STUDY": str(folder / STUDY_FILE), "CONCORS_RUN": str(folder)}
        self._processes.start(name, command, variables={**self._variables, **paths}, cwd=folder)

    def _look_after(self, folder: Path, state: State, control: Control) -> None:
        """See whether an attempt is still what is wanted, and whether it has ended."""
        name = _process_name(folder)
        started = name in self._processes.names()
        if state.state != "running":
            control.stop(state.flower_run)
            self._forget(folder, name)
            self._say(f"run {folder.name}: {state.state}")
            return
        if started:
            code = self._processes.exit_code(name)
            if code is None:
                return
        elif state.flower_run in self._own and state.flower_run in control.unfinished():
            return  # it waits for its process
        else:
            code = 0
        outcome = read_outcome(folder, state.flower_run)
        if outcome is not None:
            self._conclude(folder, outcome)
        else:
            control.stop(state.flower_run)
            self._count_kill(folder, code, ours=state.flower_run in self._own)
        self._forget(folder, name)

    def _forget(self, folder: Path, name: str) -> None:
        if name in self._processes.names():
            self._processes.end([name])
        (self._private / f"{name}.token").unlink(missing_ok=True)
        change(folder, lambda old: replace(old, flower_run=0))

    def _conclude(self, folder: Path, outcome: Outcome) -> None:
        wanted = "failed" if outcome.code else "finished"
        sentence = f"{outcome.code} {outcome.sentence}".strip()
        # Noted first: after a crash between the two, it is noted twice and not never.
        self._consortium.note(wanted, run=folder.name, code=outcome.code)
        change(folder, lambda old: _ended(old, wanted, sentence))
        self._say(f"run {folder.name}: {wanted}" + (f": {sentence}" if sentence else ""))

    def _count_kill(self, folder: Path, code: int, *, ours: bool) -> None:
        """Note that an attempt ended without a word, and decide whether there is another one."""
        now = datetime.now(UTC)
        if not ours:
            # It died with the supervisor before this one, and that was noted.
            self._consortium.note("restarted", run=folder.name)
            return
        self._consortium.note("killed", what="server app", run=folder.name, exit_code=code)
        recent = [k for k in read(folder).kills if now - datetime.fromisoformat(k) < HOUR]
        kills = (*recent, now.isoformat())
        limit = self._consortium.settings.resumes_per_hour
        if len(kills) > limit:
            sentence = (
                f"The server app ended {len(kills)} times within an hour without a word (last with "
                f"code {code}); see logs/{_process_name(folder)}.log, mend the cause and resume."
            )
            self._consortium.note("failed", run=folder.name, code="E610")
            change(folder, lambda old: replace(_ended(old, "failed", sentence), kills=kills))
            self._say(f"run {folder.name}: {sentence}")
            return
        wait_s = WAITS_S[min(len(kills), len(WAITS_S)) - 1]
        self._not_before[folder.name] = time.monotonic() + wait_s
        change(folder, lambda old: replace(old, kills=kills))
        self._consortium.note("resume", run=folder.name, automatic=True)
        self._say(f"run {folder.name}: its server app ended without a word (code {code})")


def _process_name(folder: Path) -> str:
    return f"run-{folder.name}"


def _ended(old: State, wanted: str, sentence: str) -> State:
    """Return the state of a run that ended, unless somebody has just stopped it."""
    if old.state != "running":
        return old
    return replace(old, state="finished" if wanted == "finished" else "failed", sentence=sentence)
