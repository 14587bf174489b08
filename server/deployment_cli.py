"""``concors-server`` for a consortium that runs: its commands, one function each."""

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from protocol.errors import ConfigError

if TYPE_CHECKING:
    from server.consortium import Consortium

__all__ = ["add_commands"]

Directory = Annotated[
    Path, typer.Argument(metavar="DIR", help="The consortium's directory, made by `init`.")
]
RunName = Annotated[str | None, typer.Argument(metavar="RUN", help="As `status` lists it.")]
Also = Annotated[
    list[str] | None, typer.Option(help="Another name or address of the server; repeatable.")
]
Days = Annotated[int, typer.Option(min=1, help="For how long hospitals may take part, days.")]
FOLLOW_S = 0.5


def add_commands(app: typer.Typer) -> None:
    """Add the commands of a running consortium to ``concors-server``."""
    for function in (init, admit, revoke, renew, start, run, status, stop, resume):
        app.command(function.__name__)(function)


def init(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A new directory.")],
    name: Annotated[str, typer.Option(help="The consortium's name.")],
    address: Annotated[str, typer.Option(help="host:port at which hospitals find the server.")],
    also: Also = None,
    listen: Annotated[
        str | None, typer.Option(help="IP address to listen at; by default all of them.")
    ] = None,
) -> None:
    """Make a consortium: its authority, its certificate and its keys."""
    from protocol.yaml_files import parse
    from server.consortium import Settings
    from server.founding import create

    values = {"name": name, "address": address, "also": also or ()}
    values |= {} if listen is None else {"listen": listen}
    made = create(directory, parse(Settings, values, "init"), now=datetime.now(UTC))
    console = Console()
    console.print(f"Consortium {name} in {made.root}", soft_wrap=True, highlight=False)
    _print_key(made)
    console.print("Next: concors-server admit DIR REQUEST for every hospital; concors-server start")


def admit(
    directory: Directory,
    request: Annotated[Path, typer.Argument(help="The request file that the hospital sent.")],
    replace: Annotated[
        bool, typer.Option("--replace", help="The hospital has made a new key and says so.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Where the welcome goes; by default beside the request.")
    ] = None,
) -> None:
    """Admit a hospital by its request, and write its welcome.

    Compare the fingerprint with the hospital by telephone before you send the welcome.
    """
    from deployment.papers import grouped
    from server.admission import admit as admit_hospital
    from server.consortium import load

    consortium = load(directory)
    text = _read_paper(request)
    hospital, welcome = admit_hospital(consortium, text, replace_key=replace, now=datetime.now(UTC))
    path = out or request.with_name(f"welcome-{hospital.name}.json")
    path.write_text(welcome, encoding="utf-8")
    console = Console()
    console.print(
        f"{hospital.name} is admitted. The fingerprint of its node key is", highlight=False
    )
    console.print(f"  [bold]{grouped(hospital.fingerprint)}[/]", highlight=False, soft_wrap=True)
    console.print(
        "Ask the hospital by telephone for the one it sees; if they differ, somebody is between "
        f"you: concors-server revoke {directory} {hospital.name}",
        highlight=False,
        soft_wrap=True,
    )
    _print_key(consortium)
    console.print(f"Welcome to send: {path}", highlight=False, soft_wrap=True)


def revoke(
    directory: Directory, name: Annotated[str, typer.Argument(help="The hospital.")]
) -> None:
    """Exclude a hospital; a server that runs cuts it off within seconds."""
    from server.admission import revoke as revoke_hospital
    from server.consortium import load

    revoke_hospital(load(directory), name, now=datetime.now(UTC))
    Console().print(f"{name} is excluded, and its key is never admitted again.", highlight=False)


def renew(directory: Directory, also: Also = None) -> None:
    """Make a new certificate for the server; a server that runs takes it without a break."""
    from server.consortium import load
    from server.founding import renew as renew_certificate

    renewed = renew_certificate(load(directory), tuple(also or ()), now=datetime.now(UTC))
    Console().print(
        f"The certificate is valid until {renewed.expires():%Y-%m-%d}.", highlight=False
    )


def start(directory: Directory) -> None:
    """Run the consortium's server in the foreground until SIGTERM or Ctrl-C."""
    from server.consortium import load
    from server.serving import stop_on_signals
    from server.supervisor import supervise

    consortium, stop = load(directory), threading.Event()
    stop_on_signals(stop)
    console = Console(highlight=False, soft_wrap=True)

    def say(line: str) -> None:
        console.print(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} {line}", markup=False)

    supervise(consortium, stop=stop, say=say)


def run(
    directory: Directory,
    study_file: Annotated[Path, typer.Argument(metavar="STUDY", help="The study's YAML file.")],
    detach: Annotated[bool, typer.Option("--detach", help="Do not wait for its end.")] = False,
    valid_days: Days = 180,
    start_from: Annotated[
        Path | None,
        typer.Option(help="Folder of a finished run whose networks training begins from."),
    ] = None,
) -> None:
    """Run a study with the hospitals of the consortium, and follow it to its end.

    Without a server that runs already this command is the server until then.
    """
    from protocol.config import load_study
    from server.consortium import load
    from server.describe import describe, hash_line
    from server.run_folders import new_run

    consortium, study = load(directory), load_study(study_file)
    Console().print(describe(study))
    Console().print(hash_line(study), soft_wrap=True, highlight=False)
    folder = new_run(
        consortium,
        study,
        now=datetime.now(UTC),
        lifetime=timedelta(days=valid_days),
        start_from=start_from,
    )
    Console().print(f"run: {folder}", highlight=False, soft_wrap=True)
    _follow(directory, folder, detach)


def resume(directory: Directory, name: RunName = None, valid_days: Days = 180) -> None:
    """Take up a run that was stopped or has failed, from its checkpoints."""
    from server.consortium import load
    from server.run_folders import find_run, resume_run

    consortium = load(directory)
    folder = find_run(consortium, name, ("stopped", "failed"))
    resume_run(consortium, folder, now=datetime.now(UTC), lifetime=timedelta(days=valid_days))
    Console().print(f"{folder.name} is taken up again", highlight=False)
    _follow(directory, folder, detach=True)


def stop(directory: Directory, name: RunName = None) -> None:
    """Stop a run; `resume` takes it up again."""
    from server.consortium import load
    from server.run_folders import find_run, stop_run

    consortium = load(directory)
    folder = find_run(consortium, name, ("running",))
    stop_run(consortium, folder)
    Console().print(f"{folder.name} is stopped", highlight=False)


def status(
    directory: Directory,
    well: Annotated[
        bool, typer.Option("--well", help="Show the server only; exit with 1 unless it is well.")
    ] = False,
) -> None:
    """Show the hospitals and the runs."""
    from server.consortium import load
    from server.status import hospitals_table, is_well, runs_table, server_line

    consortium, console, now = load(directory), Console(), datetime.now(UTC)
    console.print(server_line(consortium, now), highlight=False, soft_wrap=True)
    if well:
        raise typer.Exit(0 if is_well(consortium, now) else 1)
    for table in (hospitals_table(consortium), runs_table(consortium)):
        console.print(table)


def _follow(directory: Path, folder: Path, detach: bool) -> None:
    """Print what a run does until it has ended; be its server if there is none."""
    from server.consortium import load
    from server.serving import served, stop_on_signals
    from server.supervisor import is_supervised

    console, consortium = Console(highlight=False, soft_wrap=True), load(directory)
    supervised, stop = is_supervised(consortium), threading.Event()
    if detach:
        if not supervised:
            console.print("The server is not started; the run begins with `concors-server start`.")
    elif supervised:
        _print_until_over(folder, console, stop)
    else:
        stop_on_signals(stop)
        with served(consortium, stop, say=lambda line: console.print(line, markup=False)):
            _print_until_over(folder, console, stop)


def _print_until_over(folder: Path, console: Console, stop: threading.Event) -> None:
    from protocol.errors import ConcorsError
    from server.run_state import read
    from server.watching.reading import state_of

    seen = 0
    while not stop.is_set():
        state = read(folder)
        seen = _print_progress(folder, seen, console)
        if state.state == "finished":
            console.print(f"report: {folder / 'report.html'}")
            # Finished, but without one of its hospitals: 2, as `concors-server watch` ends.
            if (code := state_of(folder).exit_code) != 0:
                raise typer.Exit(code)
            return
        if state.state == "stopped":
            console.print(f"{folder.name} was stopped; `concors-server resume` takes it up again.")
            return
        if state.state == "failed":
            raise ConcorsError(state.sentence)
        stop.wait(FOLLOW_S)


def _print_progress(folder: Path, seen: int, console: Console) -> int:
    from server.status import progress_lines

    lines = progress_lines(folder)
    for line in lines[seen:]:
        console.print(line, markup=False)
    return len(lines)


def _print_key(consortium: "Consortium") -> None:
    """Print the coordinator's public key, which hospitals compare when the welcome comes."""
    from deployment.papers import grouped

    key = consortium.run_key().public_key().public_bytes_raw().hex()
    Console().print(f"The coordinator's key\n  {grouped(key)}", highlight=False, soft_wrap=True)


def _read_paper(path: Path) -> str:
    from deployment.papers import MAX_PAPER_BYTES

    try:
        if path.stat().st_size > MAX_PAPER_BYTES:
            raise ConfigError(f"{path.name} is longer than 1 MiB; a request is not.")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path.name} cannot be read as text; check the path.") from error
