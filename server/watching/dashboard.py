"""The dashboard: one page that shows a run, or the runs of a server's directory, as they go."""

import hashlib
import re
from collections.abc import Awaitable, Callable
from importlib.resources import files
from pathlib import Path
from typing import Literal, Protocol

import jinja2
from fastapi import FastAPI, HTTPException, Request, Response
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse

from protocol.documents import encode
from protocol.errors import ConcorsError, ConfigError
from server.watching.access import HEADERS, REPORT_POLICY, Access
from server.watching.files import document
from server.watching.reading import state_of
from server.watching.state import RunState

__all__ = ["RunControl", "dashboard_app", "find_runs"]

RUN_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")
LOCKED = (
    "This dashboard opens with the link that concors-server dashboard printed; copy the whole link "
    "into the address bar."
)
ASSETS = {"page.js": "text/javascript", "page.css": "text/css", "icon.svg": "image/svg+xml"}
Action = Literal["stop", "resume"]
Next = Callable[[Request], Awaitable[Response]]


class RunControl(Protocol):
    """What the buttons do; a server's directory has it, a plain run's folder has not.

    Both raise a `ConcorsError` where that is not possible.
    """

    def stop(self, run_dir: Path) -> None:
        """Have a run stopped; it can be resumed."""

    def resume(self, run_dir: Path) -> None:
        """Have a run taken up again from its checkpoints."""


def find_runs(root: Path) -> dict[str, Path]:
    """Return the folders of the runs by name, the one written to last first.

    Parameters
    ----------
    root : Path
        A run's own folder, or a server's directory with ``runs/`` in it.

    Raises
    ------
    ConfigError
        If there is no such folder.
    """
    if not root.is_dir():
        raise ConfigError(f"There is no folder {root.name}; name one of a run or of a server.")
    if not (root / "runs").is_dir():
        return {root.resolve().name: root}
    folders = [
        path
        for path in (root / "runs").iterdir()
        if path.is_dir() and not path.is_symlink() and RUN_ID.fullmatch(path.name)
    ]
    return {path.name: path for path in sorted(folders, key=_last_written, reverse=True)}


def _last_written(run_dir: Path) -> tuple[float, str]:
    progress = run_dir / "progress.jsonl"
    return (progress if progress.is_file() else run_dir).stat().st_mtime, run_dir.name


def _possible(state: RunState, control: RunControl | None) -> list[Action]:
    if control is None:
        return []
    if not state.is_over:
        return ["stop"]
    return ["resume"] if state.status in ("stopped", "failed") else []


class _Pages:
    """What the routes answer from."""

    def __init__(self, root: Path, access: Access, control: RunControl | None) -> None:
        folder = files("server.watching.page")
        self.root, self.access, self.control = root, access, control
        self.assets = {name: (folder / name).read_text(encoding="utf-8") for name in ASSETS}
        environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
        source = (folder / "page.html.j2").read_text(encoding="utf-8")
        self.page = environment.from_string(source).render(csrf=access.csrf)

    def run(self, name: str | None) -> tuple[dict[str, Path], str]:
        """Return all runs, and the one meant; a name is looked up and never made a path of."""
        runs = find_runs(self.root)
        if name is None and runs:
            return runs, next(iter(runs))
        if name not in runs:
            raise HTTPException(404, "There is no such run here.")
        return runs, name

    def state(self, name: str | None) -> str:
        """Return the JSON of a run's state and of what else the page shows."""
        runs, name = self.run(name)
        state = state_of(runs[name])
        listed = [
            {"name": each, "state": str(document(path / "run.json").get("state", ""))}
            for each, path in runs.items()
        ]
        shown = {"run": name, "runs": listed, "state": state.to_dict()}
        return encode(shown | {"can": _possible(state, self.control)}, "The state of a run")

    def press(self, name: str, action: Action) -> None:
        """Do what a button says."""
        runs, name = self.run(name)
        if self.control is None or action not in _possible(state_of(runs[name]), self.control):
            raise HTTPException(409, f"The run cannot be asked to {action} now.")
        if action == "stop":
            self.control.stop(runs[name])
        else:
            self.control.resume(runs[name])


def dashboard_app(
    root: Path, access: Access, control: RunControl | None = None, *, host: str = "127.0.0.1"
) -> FastAPI:
    """Return the application.

    Parameters
    ----------
    root : Path
        A run's folder or a server's directory.
    control : RunControl, optional
        Behind the buttons; there are none without it.
    host : str
        Name by which browsers reach it, besides the loopback's: any other name is refused, so that
        no foreign page can have its own name resolved to this machine.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    _guard(app, access, host)
    _routes(app, _Pages(root, access, control))
    return app


def _guard(app: FastAPI, access: Access, host: str) -> None:
    @app.middleware("http")
    async def guard(request: Request, call_next: Next) -> Response:
        opening = request.url.path == "/" and access.opens(request.query_params.get("token"))
        if not opening and not access.may_look(request.cookies, request.headers):
            answer: Response = PlainTextResponse(LOCKED, 401)
        elif request.method == "POST" and not access.may_press(request.headers):
            answer = PlainTextResponse("Press the buttons on the page itself.", 403)
        else:
            answer = await call_next(request)
        for name, value in HEADERS.items():
            answer.headers.setdefault(name, value)
        return answer

    allowed = ["127.0.0.1", "localhost", host]
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=allowed, www_redirect=False)

    @app.exception_handler(ConcorsError)
    async def told(_: Request, error: ConcorsError) -> Response:
        return PlainTextResponse(f"{error.code} {error.sentence}", 409)


def _routes(app: FastAPI, pages: _Pages) -> None:
    # Plain functions: they read files, and the server gives each a thread of its own.
    access = pages.access

    @app.get("/")
    def page(token: str | None = None) -> Response:
        if token is None:
            return HTMLResponse(pages.page)
        answer = RedirectResponse("/", 303)
        answer.set_cookie(
            access.cookie, access.session, httponly=True, samesite="strict", secure=access.secure
        )
        return answer

    @app.get("/state")
    def state(request: Request, run: str | None = None) -> Response:
        text = pages.state(run)
        tag = f'"{hashlib.sha256(text.encode()).hexdigest()[:32]}"'
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers={"ETag": tag})
        return Response(text, media_type="application/json", headers={"ETag": tag})

    @app.get("/report/{run}")
    def report(run: str) -> Response:
        runs, name = pages.run(run)
        path = runs[name] / "report.html"
        if not path.is_file():
            raise HTTPException(404, "This run has no report yet.")
        text = path.read_text(encoding="utf-8")
        return HTMLResponse(text, headers={"Content-Security-Policy": REPORT_POLICY})

    @app.post("/runs/{run}/{action}")
    def press(run: str, action: Action) -> Response:
        pages.press(run, action)
        return Response(status_code=204)

    @app.get("/{name}")
    def asset(name: str) -> Response:
        if name not in ASSETS:
            raise HTTPException(404)
        return Response(pages.assets[name], media_type=ASSETS[name])
