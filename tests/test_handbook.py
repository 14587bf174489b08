"""The operator's handbook says what is so: its tables, its commands, and its story, which is run.

``console`` blocks are run as they stand, in their order, in one directory a party; papers that one
mails to the other are carried over in between, and ``HASH`` is the hash that ``run`` printed.
``shell`` blocks need root, systemd or Docker: there it is checked that what they name exists.
"""

import csv
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import typer
import yaml
from pydantic import BaseModel

from client.cli import app as client_app
from client.policy import SitePolicy
from protocol import errors
from protocol.code import PACKAGES
from protocol.config import load_study
from server.cli import app as server_app

REPOSITORY = Path(__file__).resolve().parents[1]
TEXT = (REPOSITORY / "docs" / "handbook.md").read_text()
BLOCKS = re.findall(r"```(\w+)(?: ([\w.]+))?\n(.*?)```", TEXT, re.DOTALL)
APPS = {"concors-client": client_app, "concors-server": server_app}
# From the node's start to the first finished round, and for any other command; a quiet machine
# needs a small part of either.
FIRST_ROUND_S = 120.0
LIMIT_S = 300.0


def test_the_handbook_is_not_longer_than_it_is_read() -> None:
    assert len(TEXT.splitlines()) <= 350


def commands(party: str, text: str = TEXT) -> list[str]:
    """Return the commands of a party's console blocks, in their order."""
    blocks = re.findall(rf"```console {party}\n(.*?)```", text, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    assert all(line.startswith("$ ") for line in lines)
    return [line.removeprefix("$ ") for line in lines]


def test_it_takes_three_commands_a_side_to_the_first_round() -> None:
    joining = TEXT[TEXT.index("**1.**") : TEXT.index("**From then on**")]
    firsts = {party: commands(party, joining) for party in ("coordinator", "hospital")}
    assert [line.split()[1] for line in firsts["coordinator"]] == ["init", "admit", "run"]
    assert [line.split()[1] for line in firsts["hospital"]] == ["request", "join", "start"]


def options() -> dict[str, dict[str, set[str]]]:
    """Return the options of every command, by program."""
    found: dict[str, dict[str, set[str]]] = {}
    for program, app in APPS.items():
        group: Any = typer.main.get_command(app)
        found[program] = {
            name: {flag for parameter in command.params for flag in parameter.opts}
            for name, command in group.commands.items()
        }
    return found


def ours(line: str) -> Iterator[tuple[str, str, list[str]]]:
    """Give each command of ours in a line, with its options: also in a container, or as a user."""
    words = shlex.split(line, comments=True)
    for place, word in enumerate(words):
        if Path(word).name in APPS and place + 1 < len(words) and words[place - 1] != "-t":
            rest = words[place + 1 :]
            if re.fullmatch("[a-z-]+", rest[0]):
                flags = [each.split("=")[0] for each in rest if each.startswith("-")]
                yield Path(word).name, rest[0], flags


def test_every_command_the_handbook_names_exists() -> None:
    spoken = re.findall(r"`(concors-(?:client|server) [a-z-]+[^`]*)`", TEXT)
    blocks = [
        line
        for kind, _, body in BLOCKS
        if kind in ("console", "shell")
        for line in body.replace("$ ", "").splitlines()
    ]
    known, seen = options(), 0
    for line in [*spoken, *blocks]:
        for program, command, flags in ours(line):
            assert command in known[program], f"{program} {command}"
            assert set(flags) <= known[program][command] | {"--help"}, line
            seen += 1
    assert seen > 30


def test_shell_blocks_name_files_that_exist() -> None:
    text = "\n".join(body for kind, _, body in BLOCKS if kind == "shell")
    named = re.findall(r"(?<![\w/])(?:packaging|scripts)/[\w./@-]+", text)
    assert len(set(named)) >= 4
    for name in named:
        assert (REPOSITORY / name).exists(), name


def test_the_table_of_error_codes_is_that_of_the_project() -> None:
    rows = re.findall(r"^\| (E\d{3}) \| (.*?) \| (.*?) \|$", TEXT, re.MULTILINE)
    classes = [getattr(errors, name) for name in errors.__all__]
    wanted = {each.code: str(each.__doc__).split("\n")[0] for each in classes}
    assert len(wanted) == len(classes)
    said = {code: meaning for code, meaning, _ in rows}
    assert {code: said.get(code) for code in wanted} == wanted
    # Beside the classes there are refusals with a code of their own.
    written = set()
    for path in (path for name in PACKAGES for path in (REPOSITORY / name).rglob("*.py")):
        written |= set(re.findall(r'"(E\d{3})"', path.read_text(encoding="utf-8")))
    assert set(said) == written
    assert all(len(advice) > 20 for _, _, advice in rows)
    assert [code for code, _, _ in rows] == sorted(code for code, _, _ in rows)


def keys(model: type[BaseModel], before: str = "") -> set[str]:
    """Return the dotted names of all keys a model of settings has."""
    found = set()
    for name, field in model.model_fields.items():
        parts = [field.annotation, *get_args(field.annotation)]
        inner = [p for p in parts if isinstance(p, type) and issubclass(p, BaseModel)]
        found |= keys(inner[0], f"{before}{name}.") if inner else {f"{before}{name}"}
    return found


def dotted(values: Mapping[str, Any], before: str = "") -> set[str]:
    found = set()
    for name, value in values.items():
        each = value if isinstance(value, list) else [value]
        inner = [part for part in each if isinstance(part, dict)]
        names = {n for part in inner for n in dotted(part, f"{before}{name}.")}
        found |= names or {f"{before}{name}"}
    return found


def block(name: str) -> str:
    (body,) = [body for _, label, body in BLOCKS if label == name]
    return str(body)


def test_every_key_of_the_policy_is_explained() -> None:
    text = block("policy.yaml")
    values = yaml.safe_load(text)
    SitePolicy.model_validate(values)
    assert dotted(values) == keys(SitePolicy)


def test_the_study_is_a_study(tmp_path: Path) -> None:
    (tmp_path / "first.yaml").write_text(block("first.yaml"))
    assert load_study(tmp_path / "first.yaml").hospitals.all == ("alder",)


def test_links_lead_somewhere() -> None:
    headings = re.findall(r"^#+ (.*)$", TEXT, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings}
    for target in re.findall(r"\]\(([^)]+)\)", TEXT):
        if target.startswith("#"):
            assert target[1:] in anchors, target
        else:
            assert (REPOSITORY / "docs" / target).exists(), target


def write_hospital(folder: Path, number: int = 60) -> None:
    """Write a hospital of a table: ages, months, and whether the event came."""
    rng = np.random.default_rng(1)
    age = rng.normal(60, 10, number)
    time_to = rng.exponential(40 * np.exp(-0.05 * (age - 60)))
    end = rng.uniform(6, 72, number)
    folder.mkdir()
    with (folder / "outcomes.csv").open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["id", "months", "died", "age"])
        for i in range(number):
            months = round(min(time_to[i], end[i]) + 0.01, 3)
            rows.writerow([f"P{i}", months, int(time_to[i] <= end[i]), round(age[i], 1)])
    outcomes = {"path": "outcomes.csv", "patient": "id", "months": "months", "event": "died"}
    age_column = {"column": "age", "unit": "years"}
    site = {"name": "alder", "outcomes": outcomes, "covariates": {"age": age_column}}
    (folder / "site.yaml").write_text(yaml.safe_dump(site))


class Story:
    """Runs the handbook's commands as two people on two machines would.

    Parameters
    ----------
    folder : Path
        Holds the coordinator's and the hospital's directories.
    watched : callable
        Is told the id of every process that stays.
    """

    def __init__(self, folder: Path, watched: Callable[[int], object]) -> None:
        self.places = {name: folder / name for name in ("coordinator", "hospital")}
        for place in self.places.values():
            place.mkdir()
        self.staying: dict[str, subprocess.Popen[bytes]] = {}
        self._hash = ""
        self._watched = watched
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        python_path = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
        # As wide as a page, so that no line is broken in two.
        self._variables = {**os.environ, "PATH": path, "PYTHONPATH": python_path, "COLUMNS": "200"}

    def output(self, command: str) -> str:
        return self._log(command).read_text()

    def do(self, party: str, command: str) -> str:
        """Run a command to its end and return what it said; one that stays is left running."""
        line = command.replace(":8443", f":{self._port}")
        if "HASH" in line:
            line = line.replace("HASH", self.study_hash())
        words, place = shlex.split(line), self.places[party]
        stays = words[1] == "start" or (words[1] == "run" and "--detach" not in words)
        with self._log(command).open("wb") as log:
            process = subprocess.Popen(
                words,
                cwd=place,
                env=self._variables,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        if stays:
            self.staying[command] = process
            self._watched(process.pid)
            return ""
        assert process.wait(timeout=LIMIT_S) == 0, f"{command}\n{self.output(command)}"
        return self.output(command)

    def said(self, command: str, words: str) -> bool:
        """Say whether a command has said something by now."""
        return words in self.output(command)

    def node(self) -> "subprocess.Popen[bytes]":
        """Return the hospital's process."""
        return next(p for command, p in self.staying.items() if "concors-client start" in command)

    def study_hash(self) -> str:
        """Return the hash that `run` printed."""
        if not self._hash:
            run = next(command for command in self.staying if " run " in command)
            self.wait(lambda: "study hash: " in self.output(run), run)
            self._hash = self.output(run).split("study hash: ")[1].split()[0]
        return self._hash

    def mail(self, pattern: str, sender: str, receiver: str) -> None:
        for path in self.places[sender].glob(pattern):
            shutil.copy(path, self.places[receiver])

    def wait(self, done: Callable[[], bool], command: str, limit_s: float = LIMIT_S) -> None:
        """Wait for something that a command which stays is to bring about."""
        deadline, running = time.monotonic() + limit_s, True
        while not done():
            # What it did before it ended is looked for once more.
            assert running, f"{command}\n{self.output(command)}"
            assert time.monotonic() < deadline, f"{command}\n{self.output(command)}"
            running = self.staying[command].poll() is None
            time.sleep(0.1)

    def close(self) -> None:
        for process in self.staying.values():
            process.send_signal(signal.SIGTERM)
            process.send_signal(signal.SIGCONT)
        codes = {}
        for command, process in self.staying.items():
            try:
                codes[command] = process.wait(timeout=60)
            finally:
                process.kill()
        assert set(codes.values()) <= {0}, codes

    def _log(self, command: str) -> Path:
        name = re.sub(r"\W+", "-", command)
        return self.places["coordinator"].parent / f"{name}.log"


@pytest.fixture
def story(tmp_path: Path, watch: Callable[[int], object]) -> Iterator[Story]:
    told = Story(tmp_path, watch)
    yield told
    told.close()


def rounds_finished(run: Path) -> set[int]:
    """Return the rounds of training whose update a run's own log tells of."""
    log = run / "audit.jsonl"
    text = log.read_text() if log.is_file() else ""
    # The newest line may be half written.
    lines = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    return {line["detail"]["round"] for line in lines if line["event"] == "reply.accepted"}


def is_online(consortium: Path) -> bool:
    """Say whether the server that runs sees a hospital's node."""
    status = consortium / "running" / "status.json"
    return status.is_file() and "online" in status.read_text()


def fingerprints(output: str) -> list[str]:
    """Return the fingerprints a command printed, in groups of eight."""
    return re.findall(r"(?:[0-9a-f]{8} ){7}[0-9a-f]{8}", output)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_handbooks_story_comes_true(story: Story) -> None:
    coordinator, hospital = story.places["coordinator"], story.places["hospital"]
    (coordinator / "first.yaml").write_text(block("first.yaml"))
    write_hospital(hospital / "alder")
    run = coordinator / "heart" / "runs" / "first-1"
    for _, party, body in [each for each in BLOCKS if each[0] == "console"]:
        if "concors-client join" in body:
            approval = block("approval").replace("HASH", story.study_hash())
            (hospital / "alder" / "policy.yaml").write_text(approval)
        for line in body.splitlines():
            # The study takes seconds, and a run that has finished cannot be stopped any more.
            if line.endswith("--detach"):
                story.node().send_signal(signal.SIGSTOP)
            story.do(party, line.removeprefix("$ "))
            if " stop " in line:
                story.node().send_signal(signal.SIGCONT)
        story.mail("*.request.json", "hospital", "coordinator")
        story.mail("welcome-*.json", "coordinator", "hospital")
        if "concors-client start" in body:
            (first,) = [command for command in story.staying if " run " in command]
            story.wait(lambda: bool(rounds_finished(run)), first, FIRST_ROUND_S)
            assert story.staying[first].wait(timeout=LIMIT_S) == 0, story.output(first)
            assert rounds_finished(run) == {1, 2}
            assert (run / "report.html").is_file()
            del story.staying[first]
        if "concors-server start" in body:
            (server,) = [command for command in story.staying if "server start" in command]
            # What the server before it saw last is there until this one looks for itself.
            story.wait(partial(story.said, server, "the server is up"), server)
            story.wait(lambda: is_online(coordinator / "heart"), server)
    assert "approved" in story.output("concors-client studies alder")
    assert "first-2" in story.output("concors-server resume heart first-2")
    # What two people read out on the telephone is the same at both ends.
    admitted = fingerprints(story.output("concors-server admit heart alder.request.json"))
    requested = fingerprints(story.output("concors-client request alder"))
    joined = fingerprints(story.output("concors-client join alder welcome-alder.json"))
    assert admitted == [*requested, *joined]
