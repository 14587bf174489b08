"""Archives that hang, lie and flood, in classic DICOM: each costs its study one sentence."""

import gc
import socket
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import MRImageStorage
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind as FIND
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelGet as GET

from client.pacs.fetch import fetch
from client.pacs.wanted import Entry

# The peer of these tests leaves sockets open where it is cut off; ours are closed.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in. <socket")
CANARY = "CANARY^JANE"
Behaviour = Callable[[Any, list[Dataset]], Iterator[Any]]


def honest(event: Any, images: list[Dataset]) -> Iterator[Any]:
    yield len(images)
    for image in images:
        yield 0xFF00, image


class FakeArchive:
    """A C-FIND and C-GET service over a few images, whose way to send is a function."""

    def __init__(self, images: list[Dataset]) -> None:
        self.images = images
        self.behaviours: dict[str, Behaviour] = {}
        self.answer: Callable[[Dataset], Dataset] = lambda answer: answer
        self.requests = 0

    def find(self, event: Any) -> Iterator[Any]:
        asked = event.identifier
        level = asked.QueryRetrieveLevel
        key = {"STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID"}.get(
            level, "SOPInstanceUID"
        )
        seen = {}
        for image in self._chosen(asked, skip=key):
            answer = Dataset()
            for element in asked:
                if element.keyword != "QueryRetrieveLevel" and element.keyword in image:
                    setattr(answer, element.keyword, image[element.keyword].value)
            answer.QueryRetrieveLevel = level
            seen[image[key].value] = answer
        for answer in seen.values():
            yield 0xFF00, self.answer(answer)

    def get(self, event: Any) -> Iterator[Any]:
        self.requests += 1
        images = self._chosen(event.identifier)
        behaviour = self.behaviours.get(event.identifier.StudyInstanceUID, honest)
        yield from behaviour(event, images)

    def _chosen(self, asked: Dataset, skip: str = "") -> list[Dataset]:
        def fits(image: Dataset) -> bool:
            for key in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
                value = asked.get(key)
                wanted = [value] if isinstance(value, str) else list(value or [])
                if key != skip and any(wanted) and image[key].value not in wanted:
                    return False
            return True

        return [image for image in self.images if fits(image)]


def make_images(make_image: Callable[..., Dataset], studies: int = 1) -> list[Dataset]:
    return [
        make_image(f"1.2.{n}", f"1.2.{n}.1", f"1.2.{n}.1.{i}")
        for n in range(studies)
        for i in range(3)
    ]


@pytest.fixture(scope="module", autouse=True)
def _forgotten() -> Iterator[None]:
    """Let go of the peer's open sockets here, not in a test of something else."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture
def archive(make_image: Callable[..., Dataset]) -> Iterator[tuple[FakeArchive, int]]:
    fake = FakeArchive(make_images(make_image, 2))
    entity = AE("ORTHANC")
    entity.add_supported_context(FIND)
    entity.add_supported_context(GET)
    entity.add_supported_context(MRImageStorage, scu_role=True, scp_role=True)
    entity.require_called_aet = True
    handlers = [(evt.EVT_C_FIND, fake.find), (evt.EVT_C_GET, fake.get)]
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    try:
        yield fake, server.server_address[1]
    finally:
        server.shutdown()


STUDIES = [Entry(1, uid="1.2.0"), Entry(2, uid="1.2.1")]
QUICK = {"retries": 0, "silence_timeout_s": 2.0, "connect_timeout_s": 2.0}


def assert_only_the_first_fails(site: Path, words: str) -> None:
    summary = fetch(site, STUDIES, pause_s=0.0)
    assert not summary.is_whole and summary.wanted == 2 and summary.complete == 1
    ((_, reason),) = summary.incomplete
    assert words in reason and reason.endswith(".")
    journal = (site / ".concors" / "fetch.jsonl").read_text()
    assert "CANARY" not in journal + reason and "1.2." not in journal + reason
    assert not list((site / "store").glob("*/.*")), "a draft is left"


def hang(event: Any, images: list[Dataset]) -> Iterator[Any]:
    yield len(images)
    yield 0xFF00, images[0]
    HANG.wait(5)


HANG = threading.Event()


def another_study(event: Any, images: list[Dataset]) -> Iterator[Any]:
    yield len(images)
    for image in images:
        image.StudyInstanceUID = "1.2.99"
        yield 0xFF00, image


def flood(event: Any, images: list[Dataset]) -> Iterator[Any]:
    yield 1000
    for _ in range(1000):
        yield 0xFF00, images[0]


def enormous(event: Any, images: list[Dataset]) -> Iterator[Any]:
    yield 1
    images[0].PixelData = bytes(3_000_000)
    yield 0xFF00, images[0]


def endless(event: Any, images: list[Dataset]) -> Iterator[Any]:
    yield 1000
    for index in range(1000):
        images[0].SOPInstanceUID = f"1.2.77.{index}"
        images[0].PixelData = bytes(500_000)
        yield 0xFF00, images[0]


def fewer(event: Any, images: list[Dataset]) -> Iterator[Any]:
    return honest(event, images[:1])


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        (hang, "silent for 2 s"),
        (another_study, "3 of 3 images that the archive announces did not come"),
        (flood, "keeps sending what was not asked for"),
        (enormous, "a file of more than 1 MB"),
        (endless, "more than 2 MB at once"),
        (fewer, "2 of 3 images that the archive announces did not come"),
    ],
)
def test_what_an_archive_does_wrong_costs_one_study(
    behaviour: Behaviour,
    words: str,
    archive: tuple[FakeArchive, int],
    make_site: Callable[..., Path],
) -> None:
    fake, port = archive
    fake.behaviours["1.2.0"] = behaviour
    site = make_site("c-get", port, **QUICK, max_file_megabytes=1, max_study_megabytes=2)
    HANG.clear()
    assert_only_the_first_fails(site, words)
    HANG.set()


def test_what_comes_twice_is_kept_once(
    archive: tuple[FakeArchive, int], make_site: Callable[..., Path]
) -> None:
    fake, port = archive
    fake.behaviours["1.2.0"] = lambda event, images: honest(event, [*images, *images])
    summary = fetch(make_site("c-get", port), STUDIES)
    assert summary.is_whole and (summary.stored, summary.repeated) == (6, 3)


def test_a_study_that_breaks_off_is_tried_again(
    archive: tuple[FakeArchive, int], make_site: Callable[..., Path]
) -> None:
    fake, port = archive

    def breaks_off(event: Any, images: list[Dataset]) -> Iterator[Any]:
        yield len(images)
        yield 0xFF00, images[0]
        fake.behaviours.clear()
        event.assoc.abort()

    fake.behaviours["1.2.0"] = breaks_off
    summary = fetch(make_site("c-get", port, retries=1), STUDIES, pause_s=0.0)
    assert summary.is_whole and (summary.stored, summary.repeated) == (6, 0)
    assert fake.requests == 3


def test_an_announcement_beyond_the_limit_is_not_fetched(
    archive: tuple[FakeArchive, int], make_site: Callable[..., Path]
) -> None:
    fake, port = archive
    summary = fetch(make_site("c-get", port, max_study_files=2), STUDIES)
    assert summary.complete == 0 and fake.requests == 0
    assert "announces more than 2 images" in summary.incomplete[0][1]


def test_answers_that_are_no_uids_are_nonsense(
    archive: tuple[FakeArchive, int], make_site: Callable[..., Path]
) -> None:
    fake, port = archive

    def garble(answer: Dataset) -> Dataset:
        if answer.QueryRetrieveLevel == "IMAGE" and "1.2.0" in answer.StudyInstanceUID:
            answer.SOPInstanceUID = "../../etc"
        return answer

    fake.answer = garble
    assert_only_the_first_fails(make_site("c-get", port, **QUICK), "what is not DICOM")


def test_a_refused_association_is_one_sentence(
    archive: tuple[FakeArchive, int], make_site: Callable[..., Path]
) -> None:
    _, port = archive
    summary = fetch(make_site("c-get", port, **(QUICK | {"ae_title": "OTHER"})), STUDIES)
    assert summary.complete == 0 and "refuses the association" in summary.incomplete[0][1]


@contextmanager
def raw_server(speak: Callable[[socket.socket], None]) -> Iterator[int]:
    """Listen, and let a function speak on each connection."""
    listener = socket.create_server(("127.0.0.1", 0))
    done = threading.Event()

    def serve() -> None:
        while not done.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(5)
                with suppress(OSError):
                    speak(connection)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        done.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def say_nothing(connection: socket.socket) -> None:
    connection.recv(1 << 20)
    connection.recv(1)


def say_http(connection: socket.socket) -> None:
    connection.recv(1 << 20)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")


def say_a_frame_of_4_gigabytes(connection: socket.socket) -> None:
    connection.recv(1 << 20)
    connection.sendall(b"\x02\x00\xff\xff\xff\xff")
    while True:
        connection.sendall(bytes(1 << 16))


def say_half_a_frame(connection: socket.socket) -> None:
    connection.recv(1 << 20)
    connection.sendall(b"\x02\x00\x00\x00\x01\x00half")
    connection.recv(1)


@pytest.mark.parametrize(
    "speak", [say_nothing, say_http, say_a_frame_of_4_gigabytes, say_half_a_frame]
)
def test_what_is_no_archive_is_one_sentence(
    speak: Callable[[socket.socket], None],
    make_site: Callable[..., Path],
    capfd: pytest.CaptureFixture[str],
) -> None:
    with raw_server(speak) as port:
        summary = fetch(make_site("c-get", port, **QUICK), STUDIES[:1])
    ((_, reason),) = summary.incomplete
    assert reason.startswith("the archive ") and reason.endswith(".")
    assert capfd.readouterr() == ("", "")


def test_nobody_listening_is_one_sentence(make_site: Callable[..., Path]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    many = [Entry(n, uid=f"1.2.{n}") for n in range(8)]
    for protocol in ("c-get", "dicomweb"):
        summary = fetch(make_site(protocol, port, **QUICK), many)
        reasons = [reason for _, reason in summary.incomplete]
        assert len(reasons) == 8 and "cannot be reached" in reasons[0]
        # One that fails on end is left alone.
        assert all("not tried" in reason for reason in reasons[5:])
