"""The two doors of the SuperLink: what passes, what does not, and what is written about it."""

import asyncio
import json
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from deployment.certificates import new_key
from deployment.control import TOKEN_HEADER
from deployment.node_keys import public_pem
from deployment.papers import fingerprint_of
from server.superlink.access_log import AccessLog
from server.superlink.gates import fleet_gate, own_gate

CONTROL = "/v1/control/start-run"


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Answer everything with how many bytes were sent."""
    size, more = 0, True
    while more:
        message = await receive()
        size, more = size + len(message["body"]), message["more_body"]
    body = f"got {size}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


def ask(gate: Any, method: str, path: str, **options: Any) -> httpx.Response:
    async def one() -> httpx.Response:
        transport = httpx.ASGITransport(app=gate)
        async with httpx.AsyncClient(transport=transport, base_url="https://a") as client:
            return await client.request(method, path, **options)

    return asyncio.run(one())


@pytest.fixture
def access(tmp_path: Path) -> Iterator[AccessLog]:
    log = AccessLog(tmp_path / "access.jsonl")
    yield log
    log.close()


def lines(tmp_path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (tmp_path / "access.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("path", ["/v1/fleet/pull-messages", "/health"])
def test_the_fleet_passes(tmp_path: Path, access: AccessLog, path: str) -> None:
    assert ask(fleet_gate(application, access), "POST", path, content=b"12345").text == "got 5"
    (line,) = lines(tmp_path)
    assert (line["path"], line["status"], line["in"], line["out"]) == (path, 200, 5, 5)


@pytest.mark.parametrize(
    "path",
    [
        CONTROL,
        "/v1/runtime/acquire-task",
        "/v1/responses",
        "/docs",
        "/openapi.json",
        "/",
        "/health/",
        "/v1/fleet",
        "/v1//fleet/pull-messages",
        "//v1/fleet/pull-messages",
        "/V1/FLEET/pull-messages",
    ],
)
def test_nothing_else_passes_and_it_is_noted(tmp_path: Path, access: AccessLog, path: str) -> None:
    reply = ask(fleet_gate(application, access), "POST", path, content=b"x")
    assert (reply.status_code, reply.content) == (403, b"")
    assert [line["status"] for line in lines(tmp_path)] == [403]


def test_too_long_and_unmeasured_bodies_are_refused_unread(
    tmp_path: Path, access: AccessLog
) -> None:
    gate = fleet_gate(application, access, max_body_bytes=10)
    path = "/v1/fleet/push-object"

    async def pieces() -> Any:
        yield b"1"

    assert ask(gate, "POST", path, content=b"x" * 10).text == "got 10"
    assert ask(gate, "POST", path, content=b"x" * 11).status_code == 413
    assert ask(gate, "POST", path, content=pieces()).status_code == 413
    assert [line["status"] for line in lines(tmp_path)] == [200, 413, 413]


def test_the_shown_key_is_noted_by_its_fingerprint(tmp_path: Path, access: AccessLog) -> None:
    pem = public_pem(new_key())
    gate = fleet_gate(application, access)
    for shown in (b64encode(pem).decode(), "%%%", b64encode(b"x").decode()):
        ask(gate, "GET", "/health", headers={"flwr-public-key": shown})
    assert [line["key"] for line in lines(tmp_path)] == [
        fingerprint_of(pem.decode()),
        "not a key",
        "not a key",
    ]


def test_a_strangers_path_is_one_line_and_short(tmp_path: Path, access: AccessLog) -> None:
    ask(fleet_gate(application, access), "GET", "/" + "a%0A%22" * 1000)
    (line,) = lines(tmp_path)
    assert len(line["path"]) <= 130
    assert set(line) == {"time", "ip", "path", "status", "in", "out", "key"}


def test_the_log_is_bounded_and_keeps_the_newest(tmp_path: Path) -> None:
    log = AccessLog(tmp_path / "access.jsonl", max_bytes=2000, num_files=2)
    for number in range(200):
        log.write(ip="1.2.3.4", path=f"/{number}", status=403, bytes_in=0, bytes_out=0, key="")
    log.close()
    files = sorted(tmp_path.glob("access.jsonl*"))
    assert len(files) == 3
    assert all(path.stat().st_size <= 2000 for path in files)
    assert lines(tmp_path)[-1]["path"] == "/199"


def test_an_application_that_fails_is_noted_too(tmp_path: Path, access: AccessLog) -> None:
    async def failing(scope: Any, receive: Any, send: Any) -> None:
        raise KeyError("inside")

    with pytest.raises(KeyError):
        ask(fleet_gate(failing, access), "GET", "/health")
    assert [line["status"] for line in lines(tmp_path)] == [0]


def test_the_own_door_asks_for_the_token_before_control() -> None:
    gate = own_gate(application, "secret")
    for headers in ({}, {TOKEN_HEADER: ""}, {TOKEN_HEADER: "secre"}, {TOKEN_HEADER: b"\xe9"}):
        assert ask(gate, "POST", CONTROL, headers=headers).status_code == 403
    assert ask(gate, "POST", CONTROL, headers={TOKEN_HEADER: "secret"}).status_code == 200
    assert ask(gate, "POST", "/v1/runtime/push-messages").status_code == 200
    assert ask(gate, "GET", "/health").status_code == 200
    for path in ("/docs", "/v1/fleet/pull-messages", "/v1/responses"):
        assert ask(gate, "POST", path, headers={TOKEN_HEADER: "secret"}).status_code == 403
