"""The dashboard: who may look, who may press, what leaves the folder, what a browser shows."""

import asyncio
import importlib.util
import itertools
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest
import uvicorn

from protocol.errors import ConfigError
from server.watching.access import CSRF_HEADER, Access
from server.watching.dashboard import dashboard_app, find_runs

BASE = "http://127.0.0.1:8470"
PAGE = Path(__file__).resolve().parents[3] / "server" / "watching" / "page"


@dataclass
class Control:
    """Does what a server would: writes what is wanted into ``run.json``."""

    pressed: list[tuple[str, str]] = field(default_factory=list)

    def stop(self, run_dir: Path) -> None:
        self._want(run_dir, "stop", "stopped")

    def resume(self, run_dir: Path) -> None:
        if run_dir.name == "gone-1":
            raise ConfigError("Run gone-1 cannot be resumed; look at its log.")
        self._want(run_dir, "resume", "running")

    def _want(self, run_dir: Path, action: str, state: str) -> None:
        self.pressed.append((action, run_dir.name))
        (run_dir / "run.json").write_text(json.dumps({"state": state}))


def running(recorded_run: Path, folder: Path, lines: int = 14) -> Path:
    """Return a run as it was after so many lines of progress."""
    shutil.copytree(recorded_run, folder)
    text = (folder / "progress.jsonl").read_text().splitlines(keepends=True)
    (folder / "progress.jsonl").write_text("".join(text[:lines]))
    return folder


@pytest.fixture
def server_dir(recorded_run: Path, tmp_path: Path) -> Path:
    """A server's directory with a run under way and one that failed."""
    root = tmp_path / "server"
    run = running(recorded_run, root / "runs" / "recorded-1")
    (run / "run.json").write_text('{"state": "running"}')
    failed = root / "runs" / "gone-1"
    failed.mkdir()
    (failed / "run.json").write_text('{"state": "failed", "sentence": "Three attempts failed."}')
    return root


class Client:
    """A browser without a window: it keeps cookies and follows no redirect."""

    def __init__(self, root: Path, access: Access, control: Control | None) -> None:
        self.access, self.cookies = access, httpx.Cookies()
        self._transport = httpx.ASGITransport(dashboard_app(root, access, control))

    def get(self, path: str, **options: Any) -> httpx.Response:
        return asyncio.run(self._request("GET", path, **options))

    def post(self, path: str, **options: Any) -> httpx.Response:
        return asyncio.run(self._request("POST", path, **options))

    async def _request(self, method: str, path: str, **options: Any) -> httpx.Response:
        async with httpx.AsyncClient(
            transport=self._transport, base_url=BASE, cookies=self.cookies
        ) as http:
            answer = await http.request(method, path, **options)
            self.cookies = http.cookies
        return answer


def client(root: Path, control: Control | None = None, *, inside: bool = True) -> Client:
    made = Client(root, Access(8470), control)
    if inside:
        made.cookies.set(made.access.cookie, made.access.session)
    return made


def button(made: Client, **changes: str) -> dict[str, str]:
    return {CSRF_HEADER: made.access.csrf, "Origin": BASE} | changes


# Who may look ------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/?token=", "/?token=wrong", "/state", "/page.js", "/x"])
def test_without_the_link_there_is_nothing(recorded_run: Path, path: str) -> None:
    answer = client(recorded_run, inside=False).get(path)
    assert answer.status_code == 401
    assert answer.text.startswith("This dashboard opens with the link")
    assert "recorded" not in answer.text and "set-cookie" not in answer.headers


def test_the_link_gives_a_cookie_once_and_leaves_the_address_bar(recorded_run: Path) -> None:
    made = client(recorded_run, inside=False)
    answer = made.get("/", params={"token": made.access.token})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("concors_8470=") and made.access.token not in cookie
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie
    assert made.get("/state").json()["state"]["name"] == "recorded"


def test_over_tls_the_cookie_is_for_tls_only(recorded_run: Path) -> None:
    access = Access(8470, secure=True)
    answer = Client(recorded_run, access, None).get("/", params={"token": access.token})
    assert "Secure" in answer.headers["set-cookie"]


def test_a_program_shows_the_token_itself(recorded_run: Path) -> None:
    made = client(recorded_run, inside=False)
    bearer = {"Authorization": f"Bearer {made.access.token}"}
    assert made.get("/state", headers=bearer).status_code == 200
    assert made.get("/state", headers={"Authorization": "Bearer é".encode()}).status_code == 401


def test_each_dashboard_has_secrets_of_its_own_and_shows_none() -> None:
    one, two = Access(1), Access(1)
    secrets = [one.token, one.session, one.csrf, two.token, two.session, two.csrf]
    assert len(set(secrets)) == 6 and min(map(len, secrets)) >= 43
    assert not any(secret in repr(one) for secret in secrets)


def test_another_name_for_this_machine_is_refused(recorded_run: Path) -> None:
    made = client(recorded_run)
    assert made.get("/state", headers={"Host": "evil.example"}).status_code == 400
    assert made.get("/state", headers={"Host": "localhost:8470"}).status_code == 200


def test_the_page_may_load_and_run_its_own_files_only(recorded_run: Path) -> None:
    made = client(recorded_run)
    for path in ("/", "/state", "/page.js", "/page.css", "/nothing"):
        headers = made.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy and "http" not in policy and "*" not in policy
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"
    for file in PAGE.iterdir():
        if file.suffix in (".js", ".css", ".j2"):
            text = file.read_text().replace("http://www.w3.org/2000/svg", "")
            assert "http" not in text and "//" not in re.sub(r"^\s*//.*$", "", text, flags=re.M)
            assert "innerHTML" not in text and "style=" not in text


# What may be seen --------------------------------------------------------------------------------


def test_the_same_state_is_not_sent_twice(recorded_run: Path) -> None:
    made = client(recorded_run)
    first = made.get("/state")
    again = made.get("/state", headers={"If-None-Match": first.headers["etag"]})
    assert first.status_code == 200
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize(
    "name", ["..", "%2e%2e", "../recorded-1", "nothing", "", "/etc", "linked-1", "recorded-1%2f."]
)
def test_a_run_is_looked_up_and_never_a_path(server_dir: Path, name: str) -> None:
    outside = server_dir / "outside"
    shutil.copytree(server_dir / "runs" / "recorded-1", outside)
    (server_dir / "runs" / "linked-1").symlink_to(outside)
    made = client(server_dir, Control())
    assert made.get("/state", params={"run": name}).status_code == 404
    for path in (f"/report/{name}", f"/{name}"):
        answer = made.get(path)
        assert answer.status_code == 404 or "Skip to the hospitals" in answer.text


def test_a_servers_directory_shows_its_runs_the_newest_first(server_dir: Path) -> None:
    assert list(find_runs(server_dir)) == ["gone-1", "recorded-1"]
    shown = client(server_dir, Control()).get("/state", params={"run": "recorded-1"}).json()
    assert shown["runs"] == [
        {"name": "gone-1", "state": "failed"},
        {"name": "recorded-1", "state": "running"},
    ]
    assert (shown["state"]["status"], shown["can"]) == ("running", ["stop"])


def test_a_folder_that_is_no_run_is_a_sentence_in_the_page(tmp_path: Path) -> None:
    answer = client(tmp_path).get("/state")
    assert answer.status_code == 409
    assert answer.text.startswith("E100 The folder") and "holds no run" in answer.text


def test_the_report_is_shown_without_any_right(recorded_run: Path, server_dir: Path) -> None:
    answer = client(recorded_run).get(f"/report/{recorded_run.name}")
    assert answer.text == (recorded_run / "report.html").read_text()
    assert answer.headers["content-security-policy"].startswith("sandbox; default-src 'none'")
    assert client(server_dir).get("/report/gone-1").status_code == 404


# Who may press -----------------------------------------------------------------------------------


def test_the_buttons_do_what_they_say(server_dir: Path) -> None:
    control = Control()
    made = client(server_dir, control)
    assert made.post("/runs/recorded-1/stop", headers=button(made)).status_code == 204
    assert made.get("/state?run=recorded-1").json()["can"] == ["resume"]
    assert made.post("/runs/recorded-1/resume", headers=button(made)).status_code == 204
    assert control.pressed == [("stop", "recorded-1"), ("resume", "recorded-1")]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {CSRF_HEADER: "wrong", "Origin": BASE},
        {"Origin": BASE},
        {"right": ""},
        {"right": "", "Origin": "http://evil.example"},
        {"right": "", "Origin": "http://127.0.0.1:9999"},
        {"right": "", "Origin": "null"},
    ],
)
def test_a_foreign_page_presses_nothing(server_dir: Path, headers: dict[str, str]) -> None:
    control = Control()
    made = client(server_dir, control)
    given = {name: value for name, value in headers.items() if name != "right"}
    if "right" in headers:
        given[CSRF_HEADER] = made.access.csrf
    assert made.post("/runs/recorded-1/stop", headers=given).status_code == 403
    assert made.get("/runs/recorded-1/stop", headers=button(made)).status_code in (404, 405)
    assert control.pressed == []


def test_who_was_not_let_in_presses_nothing(server_dir: Path) -> None:
    control = Control()
    made = client(server_dir, control, inside=False)
    assert made.post("/runs/recorded-1/stop", headers=button(made)).status_code == 401
    assert control.pressed == []


@pytest.mark.parametrize(("run", "action"), [("recorded-1", "resume"), ("gone-1", "stop")])
def test_what_is_not_possible_now_is_refused(server_dir: Path, run: str, action: str) -> None:
    control = Control()
    made = client(server_dir, control)
    answer = made.post(f"/runs/{run}/{action}", headers=button(made))
    assert answer.status_code == 409 and control.pressed == []
    assert made.post(f"/runs/{run}/delete", headers=button(made)).status_code == 422
    assert made.post(f"/runs/nothing/{action}", headers=button(made)).status_code == 404


def test_why_the_server_cannot_is_told(server_dir: Path) -> None:
    made = client(server_dir, Control())
    answer = made.post("/runs/gone-1/resume", headers=button(made))
    assert answer.status_code == 409
    assert answer.text == "E100 Run gone-1 cannot be resumed; look at its log."


def test_a_plain_run_has_no_buttons(recorded_run: Path, tmp_path: Path) -> None:
    folder = running(recorded_run, tmp_path / "plain")
    made = client(folder)
    assert made.get("/state").json()["can"] == []
    assert made.post("/runs/plain/stop", headers=button(made)).status_code == 409


# The command -------------------------------------------------------------------------------------

COMMAND = [sys.executable, "-c", "from server.cli import main; main()", "dashboard"]


def test_the_command_prints_one_link_that_opens_and_logs_no_token(recorded_run: Path) -> None:
    command = [*COMMAND, str(recorded_run), "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        link = process.stdout.readline().removeprefix("Open ").strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\?token=[\w-]{43}", link)
        try:
            with httpx.Client(follow_redirects=True, timeout=60) as browser:
                page = browser.get(link)
                assert page.status_code == 200 and "<title>Concors" in page.text
                assert browser.get(page.url.join("/state")).json()["run"] == "run"
            process.send_signal(signal.SIGINT)
            rest, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert rest == "" and "token" not in errors and "Traceback" not in errors


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--host", "0.0.0.0"], r"At 0\.0\.0\.0 others on the network could read"),  # noqa: S104
        (["--host", "example.org"], "'example.org' is no IPv4 address"),
        (["--certificate", __file__], "TLS needs both --certificate and --key"),
    ],
)
def test_beyond_loopback_there_must_be_tls(
    recorded_run: Path, options: list[str], sentence: str
) -> None:
    from server.watching.cli import _check_exposure

    values = dict(zip(options[::2], options[1::2], strict=True))
    certificate = Path(values["--certificate"]) if "--certificate" in values else None
    with pytest.raises(ConfigError, match=sentence):
        _check_exposure(values.get("--host", "127.0.0.1"), certificate, None)


def test_a_port_that_is_taken_is_one_sentence() -> None:
    from server.watching.cli import _listen

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"^Port {port} at 127\.0\.0\.1 cannot be had"):
            _listen("127.0.0.1", port)


# In a browser ------------------------------------------------------------------------------------


def _browser() -> ModuleType:
    place = Path(__file__).with_name("browser.py")
    spec = importlib.util.spec_from_file_location("browser", place)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    module = _browser()
    program = module.chromium()
    if program is None:
        pytest.skip("no Chromium here; install one to see the dashboard in it")
    opened = module.Browser(program, tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


@dataclass
class Served:
    link: str
    origin: str
    control: Control


@pytest.fixture
def served(server_dir: Path) -> Iterator[Served]:
    """The server's directory on a real port."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    # From now on who comes early waits, instead of being shown the browser's own page of errors.
    listener.listen()
    port = listener.getsockname()[1]
    access, control = Access(port), Control()
    app = dashboard_app(server_dir, access, control)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    origin = f"http://127.0.0.1:{port}"
    yield Served(f"{origin}/?token={access.token}", origin, control)
    server.should_exit = True
    thread.join(30)
    listener.close()


ROWS = "document.querySelectorAll('#hospital-table tbody tr').length"
CHOOSE = """(() => { const select = document.getElementById('runs'); select.value = 'recorded-1';
select.dispatchEvent(new Event('change')); })()"""


def opened(browser: Any, served: Served) -> None:
    browser.complaints.clear()
    browser.requests.clear()
    browser.open(served.link)
    browser.wait("document.querySelectorAll('#runs option').length === 2")
    browser.run(CHOOSE)
    browser.wait(f"{ROWS} === 4")


def text(browser: Any, selector: str) -> str:
    return browser.run(f"document.querySelector({selector!r}).innerText")


def test_the_page_shows_the_run_follows_it_and_loads_nothing_else(
    browser: Any, served: Served, server_dir: Path, recorded_run: Path, tmp_path: Path
) -> None:
    opened(browser, served)
    # It began when the run was recorded, so the page may add that it takes long.
    assert text(browser, "#sentence").startswith(
        "Round 1 of 3 of the stage prognosis: 0 of 3 answered, waiting for alder, birch, cedar"
    )
    assert text(browser, "#hospital-table").count("working") >= 2
    # As in the folder: three curves of three points, though progress was cut.
    assert browser.run("document.querySelectorAll('#curves path').length") == 3
    assert browser.run("document.querySelectorAll('#curves circle').length") == 9
    folder = server_dir / "runs" / "recorded-1"
    shutil.copy(recorded_run / "progress.jsonl", folder / "progress.jsonl")
    browser.wait("document.getElementById('status').innerText.includes('finished')")
    assert "took part" in text(browser, "#hospital-table")
    assert "0." in text(browser, "#figure-table")
    for name, width, dark in (("light", 1100, False), ("dark", 1100, True), ("narrow", 400, False)):
        browser.picture(tmp_path / f"{name}.png", width, dark=dark)
        assert browser.run("document.documentElement.scrollWidth - window.innerWidth") <= 0
    assert browser.complaints == []
    assert {"/".join(url.split("/")[:3]) for url in browser.requests} == {served.origin}
    assert browser.run("location.href") == served.origin + "/"


def test_the_keyboard_stops_a_study_after_a_question(browser: Any, served: Served) -> None:
    opened(browser, served)
    browser.run("document.getElementById('stop').focus()")
    browser.key("Enter", 13)
    browser.wait("document.getElementById('confirm').open")
    # The harmless answer has the focus.
    assert browser.run("document.activeElement.id") == "no"
    browser.key("Enter", 13)
    browser.wait("!document.getElementById('confirm').open")
    assert served.control.pressed == []
    browser.key("Enter", 13)
    browser.wait("document.getElementById('confirm').open")
    browser.run("document.getElementById('yes').focus()")
    browser.key("Enter", 13)
    browser.wait("!document.getElementById('resume').hidden")
    assert served.control.pressed == [("stop", "recorded-1")]
    assert "stopped by its coordinator" in text(browser, "#sentence")
    assert browser.complaints == []


CONTRAST = """(() => {
  const light = (colour) => colour.match(/[\\d.]+/g).slice(0, 3).map(Number).map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (node) => { for (; node; node = node.parentElement) {
    const colour = getComputedStyle(node).backgroundColor;
    if (!/, 0\\)|transparent/.test(colour)) return colour; } return 'rgb(255, 255, 255)'; };
  return [...document.querySelectorAll('body *')].filter((node) => node.offsetParent !== null
      && [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim()))
    .map((node) => [getComputedStyle(node).color, behind(node), node.outerHTML.slice(0, 60)])
    .map(([fore, back, name]) => { const [a, b] = [light(fore), light(back)].sort((x, y) => y - x);
      return [(a + 0.05) / (b + 0.05), name]; })
    .filter(([ratio]) => ratio < 4.5).map(([ratio, name]) => `${name}: ${ratio.toFixed(2)}`);
})()"""


def test_it_can_be_read_and_operated_by_everybody(browser: Any, served: Served) -> None:
    opened(browser, served)
    for scheme in ("light", "dark"):
        feature = {"name": "prefers-color-scheme", "value": scheme}
        browser.call("Emulation.setEmulatedMedia", features=[feature])
        # WCAG 2.2, 1.4.3: 4.5 to 1 for text.
        assert browser.run(CONTRAST) == []
    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    named = {"button", "link", "heading", "image", "img", "combobox", "progressbar", "region"}
    seen = [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in nodes
        if not node.get("ignored") and node.get("role", {}).get("value") in named
    ]
    assert [role for role, name in seen if not name] == []
    assert {"button", "heading", "combobox", "progressbar"} <= {role for role, _ in seen}
    assert browser.run("document.documentElement.lang") == "en"
    assert browser.run("document.querySelectorAll('th:not([scope])').length") == 0
    levels = "[...document.querySelectorAll('h1,h2,h3')].map((h) => Number(h.tagName[1]))"
    found = browser.run(levels)
    assert found[0] == 1 and all(b - a <= 1 for a, b in itertools.pairwise(found))
