"""Archives that hang, lie and flood, by DICOMweb: each costs its study one sentence."""

import gzip
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from client.pacs.fetch import fetch
from client.pacs.wanted import Entry

STUDIES = [Entry(1, uid="1.2.0"), Entry(2, uid="1.2.1")]
QUICK = {"retries": 0, "silence_timeout_s": 2.0, "connect_timeout_s": 2.0}
BOUNDARY = b"part-of-many"
RELATED = {
    "Content-Type": f'multipart/related; type="application/dicom"; boundary={BOUNDARY.decode()}'
}
JSON = {"Content-Type": "application/dicom+json"}

#: Status, headers, and the pieces of the body.
Reply = tuple[int, dict[str, str], Iterator[bytes]]


def whole(content: bytes) -> Iterator[bytes]:
    yield content


def part(content: bytes) -> bytes:
    return b"--" + BOUNDARY + b"\r\nContent-Type: application/dicom\r\n\r\n" + content + b"\r\n"


def parts(*contents: bytes) -> bytes:
    return b"".join(map(part, contents)) + b"--" + BOUNDARY + b"--\r\n"


def encoded(image: Dataset) -> bytes:
    stream = BytesIO()
    image.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


class FakeArchive:
    """A DICOMweb service over tiny images; a path may be given another reply."""

    def __init__(self, make_image: Callable[..., Dataset]) -> None:
        self.images = {
            study: [make_image(study, f"{study}.1", f"{study}.1.{i}") for i in range(3)]
            for study in ("1.2.0", "1.2.1")
        }
        self.replies: dict[str, Callable[[], Reply]] = {}
        self.asked: list[str] = []

    def reply(self, target: str) -> Reply:
        path, _, query = target.removeprefix("/dicom-web").partition("?")
        self.asked.append(path)
        if path in self.replies:
            return self.replies[path]()
        _, _, study, *rest = path.split("/")
        images = self.images[study]
        if "offset=0" not in query and query:
            return 200, JSON, whole(b"[]")
        if rest == ["series"]:
            answers = [{"0020000E": {"vr": "UI", "Value": [f"{study}.1"]}}]
            return 200, JSON, whole(json.dumps(answers).encode())
        if rest[-1] == "instances":
            answers = [{"00080018": {"vr": "UI", "Value": [i.SOPInstanceUID]}} for i in images]
            return 200, JSON, whole(json.dumps(answers).encode())
        wanted = [i for i in images if len(rest) == 2 or i.SOPInstanceUID == rest[-1]]
        return 200, RELATED, whole(parts(*map(encoded, wanted)))


@pytest.fixture
def archive(make_image: Callable[..., Dataset]) -> Iterator[tuple[FakeArchive, int]]:
    fake = FakeArchive(make_image)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = fake.reply(self.path)
            self.close_connection = True
            try:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                for piece in body:
                    self.wfile.write(piece)
            except OSError:
                body.close()  # type: ignore[attr-defined]

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield fake, server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def hang() -> Iterator[bytes]:
    yield part(b"begun")
    threading.Event().wait(4)


def drip() -> Iterator[bytes]:
    while True:
        yield b"-"
        threading.Event().wait(0.05)


def flood() -> Iterator[bytes]:
    yield part(b"")[:-2]
    while True:
        yield bytes(1 << 16)


def many_parts() -> Iterator[bytes]:
    while True:
        yield part(b"x" * 100)


def deep() -> bytes:
    return b"[" * 200_000


def pages() -> Callable[[], Reply]:
    count = 0

    def reply() -> Reply:
        nonlocal count
        count += 1
        answers = [{"00080018": {"vr": "UI", "Value": [f"1.2.0.1.{count}.{n}"]}} for n in range(30)]
        return 200, JSON, whole(json.dumps(answers).encode())

    return reply


SERIES, IMAGES, FILES = (
    "/studies/1.2.0/series",
    "/studies/1.2.0/series/1.2.0.1/instances",
    ("/studies/1.2.0/series/1.2.0.1"),
)
BOMB = {"Content-Encoding": "gzip"}
FOLDED = gzip.compress(bytes(5_000_000))
WRONG: list[tuple[str, Callable[[], Reply], str]] = [
    (FILES, lambda: (200, RELATED | BOMB, whole(FOLDED)), "not unfolded"),
    (SERIES, lambda: (200, JSON | BOMB, whole(FOLDED)), "not unfolded"),
    (SERIES, lambda: (200, JSON, whole(b"<html>")), "not DICOM JSON"),
    (SERIES, lambda: (200, JSON, whole(deep())), "not DICOM JSON"),
    (SERIES, lambda: (200, JSON, whole(b'{"a": 1}')), "not DICOM JSON"),
    (SERIES, lambda: (200, JSON, whole(b'[{"0020000E": 3}]')), "not DICOM JSON"),
    (SERIES, lambda: (200, JSON, whole(b'[{"0020000E": {"Value": ["../.."]}}]')), "not DICOM JSON"),
    (SERIES, lambda: (302, {"Location": "http://192.0.2.1/"}, whole(b"")), "HTTP status 302"),
    (SERIES, lambda: (500, {}, whole(b"CANARY^JANE")), "HTTP status 500"),
    (IMAGES, pages(), "more than 50 times"),
    (FILES, lambda: (200, RELATED, hang()), "broke off"),
    (FILES, lambda: (200, RELATED, flood()), "a file of more than 1 MB"),
    (FILES, lambda: (200, RELATED, many_parts()), "keeps sending"),
    (FILES, lambda: (200, RELATED, whole(part(b"x")[:-9])), "ends in the middle"),
    (FILES, lambda: (200, RELATED, whole(b"no parts at all")), "parts that are damaged"),
    (FILES, lambda: (200, JSON, whole(b"[]")), "what is not images in parts"),
    (FILES, lambda: (200, RELATED, whole(parts(b"not DICOM", b"", bytes(500)))), "3 of 3 images"),
]


@pytest.mark.parametrize(("path", "reply", "words"), WRONG)
def test_what_an_archive_does_wrong_costs_one_study(
    path: str,
    reply: Callable[[], Reply],
    words: str,
    archive: tuple[FakeArchive, int],
    make_site: Callable[..., Path],
    capfd: pytest.CaptureFixture[str],
) -> None:
    fake, port = archive
    fake.replies[path] = reply
    site = make_site(
        "dicomweb", port, **QUICK, max_file_megabytes=1, max_studies=50, max_study_files=50
    )
    summary = fetch(site, STUDIES, pause_s=0.0)
    assert summary.wanted == 2 and summary.complete == 1
    ((_, reason),) = summary.incomplete
    assert words in reason and reason.endswith(".")
    said = (site / ".concors" / "fetch.jsonl").read_text() + reason
    assert "CANARY" not in said and "1.2." not in said
    assert not list((site / "store").glob("*/.*")), "a draft is left"
    assert capfd.readouterr() == ("", "")


def test_a_slow_drip_ends_at_the_studys_deadline(
    archive: tuple[FakeArchive, int], make_site: Callable[..., Path]
) -> None:
    fake, port = archive
    fake.replies[FILES] = lambda: (200, RELATED, drip())
    summary = fetch(make_site("dicomweb", port, retries=0, study_timeout_s=1.0), STUDIES[:1])
    assert "more than 1 s for one study" in summary.incomplete[0][1]


def test_one_bad_part_costs_one_image(
    archive: tuple[FakeArchive, int],
    make_site: Callable[..., Path],
    make_image: Callable[..., Dataset],
) -> None:
    fake, port = archive
    good = [encoded(image) for image in fake.images["1.2.0"]]
    other = encoded(make_image("1.2.5", "1.2.5.1", "1.2.5.1.1"))
    content = parts(good[0], b"rubbish", good[0], other, good[2])
    fake.replies[FILES] = lambda: (200, RELATED, whole(content))
    site = make_site("dicomweb", port, retries=0)
    summary = fetch(site, STUDIES)
    assert (summary.stored, summary.repeated, summary.complete) == (5, 1, 1)
    assert dict(summary.refused) == {
        "not a DICOM file": 1,
        "an image that was not asked for": 1,
    }
    # The next start asks for the one that is missing, by itself.
    fake.asked.clear()
    assert fetch(site, STUDIES).is_whole
    assert [path for path in fake.asked if "instances/" in path] == [f"{FILES}/instances/1.2.0.1.1"]
    assert FILES not in fake.asked
