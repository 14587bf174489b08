"""DICOMweb: QIDO-RS to ask, WADO-RS to fetch, streamed part by part to the disk.

No content encoding is accepted, so that nothing unfolds; no redirection is followed and no proxy or
password of the environment is used, so that the login goes to the archive and nowhere else.
"""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from email.message import Message
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote, urlencode

import httpx

from client.pacs.archive import Image, Series, Study, StudyQuery, Wanted, is_uid
from client.pacs.parts import Parts
from client.pacs.receiver import Receiver
from client.pacs.settings import PacsSettings, authorization
from client.pacs.tls import client_context
from client.pacs.watch import Watch
from protocol.errors import TransferError

__all__ = ["WebArchive"]

TAGS = {
    "AccessionNumber": "00080050",
    "Modality": "00080060",
    "ModalitiesInStudy": "00080061",
    "NumberOfSeriesRelatedInstances": "00201209",
    "SOPClassUID": "00080016",
    "SOPInstanceUID": "00080018",
    "SeriesInstanceUID": "0020000E",
    "StudyDate": "00080020",
    "StudyDescription": "00081030",
    "StudyInstanceUID": "0020000D",
}
ASKED = ("AccessionNumber", "ModalitiesInStudy", "StudyDate", "StudyDescription")
PAGE = 1000
MAX_REPLY_BYTES = 32 << 20
CHUNK_BYTES = 65_536
DICOM_PARTS = 'multipart/related; type="application/dicom"; transfer-syntax=*'
NONSENSE = "the archive answers a query with what is not DICOM JSON; check pacs.root."
BROKE_OFF = "the connection to the archive broke off."
# Where the HTTP library has just opened a connection, plain or encrypted.
OPENED = ("connection.connect_tcp.complete", "connection.start_tls.complete")
LOGGERS = ("httpx", "httpcore", "python_multipart")

Answer = Mapping[str, Any]


class _Absent(TransferError):
    """HTTP status 404."""


class WebArchive:
    """An archive that speaks DICOMweb; see `client.pacs.archive.Archive`."""

    def __init__(self, settings: PacsSettings, site_dir: Path, watch: Watch) -> None:
        self.settings, self.watch = settings, watch
        tls = settings.tls
        login = settings.credentials and authorization(site_dir, settings.credentials)
        headers = {"Accept-Encoding": "identity", "User-Agent": "concors-client"}
        if isinstance(login, str):
            headers["Authorization"] = login
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        scheme = "http" if tls is None else "https"
        self.client = httpx.Client(
            base_url=f"{scheme}://{host}:{settings.port}{settings.root.rstrip('/')}",
            verify=True if tls is None else client_context(site_dir, tls),
            auth=login if isinstance(login, tuple) else None,
            headers=headers,
            timeout=httpx.Timeout(settings.silence_timeout_s, connect=settings.connect_timeout_s),
            trust_env=False,
            follow_redirects=False,
        )
        self.levels = {name: logging.getLogger(name).level for name in LOGGERS}

    def __enter__(self) -> "WebArchive":
        for name in LOGGERS:
            # They log addresses, and addresses hold UIDs.
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.client.close()
        for name, level in self.levels.items():
            logging.getLogger(name).setLevel(level)

    def find(self, query: StudyQuery) -> list[Study]:
        days = f"{query.first_day}-{query.last_day}" if query.first_day or query.last_day else ""
        asked = {
            "StudyDate": days,
            "ModalitiesInStudy": query.modality,
            "StudyDescription": query.description,
            "AccessionNumber": query.accession,
        }
        given = [(TAGS[name], value) for name, value in asked.items() if value]
        fields = [("includefield", TAGS[name]) for name in ASKED]
        answers = self._all("/studies", "StudyInstanceUID", [*given, *fields])
        return [
            Study(
                uid=_uid(answer, "StudyInstanceUID"),
                day=_text(answer, "StudyDate"),
                modalities=tuple(_texts(answer, "ModalitiesInStudy")),
                description=_text(answer, "StudyDescription"),
                accession=_text(answer, "AccessionNumber"),
            )
            for answer in answers
        ]

    def series(self, study: str) -> list[Series]:
        found = []
        fields = [("includefield", TAGS["NumberOfSeriesRelatedInstances"])]
        try:
            listed = self._all(f"/studies/{study}/series", "SeriesInstanceUID", fields)
        except _Absent:
            return []
        for answer in listed:
            uid, modality = _uid(answer, "SeriesInstanceUID"), _text(answer, "Modality")
            if modality and modality not in self.settings.modalities:
                continue
            path = f"/studies/{study}/series/{uid}/instances"
            images = tuple(
                Image(_uid(image, "SOPInstanceUID"), _text(image, "SOPClassUID"))
                for image in self._all(path, "SOPInstanceUID", [])
            )
            announced = _number(answer, "NumberOfSeriesRelatedInstances")
            found.append(Series(uid, modality, max(announced, len(images)), images))
        return found

    def retrieve(self, study: str, wanted: Sequence[Wanted], to: Receiver) -> None:
        for part in wanted:
            path = f"/studies/{study}/series/{part.series}"
            if part.whole:
                self._fetch(path, to)
                continue
            for image in part.images:
                self._fetch(f"{path}/instances/{image.uid}", to)

    def _fetch(self, path: str, to: Receiver) -> None:
        with self._response(path, [], DICOM_PARTS) as response:
            kind = Message()
            kind["Content-Type"] = response.headers.get("Content-Type", "")
            boundary = kind.get_boundary()
            if kind.get_content_type() != "multipart/related" or not boundary:
                raise TransferError("the archive answers with what is not images in parts.")
            with Parts(boundary, to) as parts:
                for chunk in self._chunks(response):
                    parts.feed(chunk)
                parts.end()

    def _all(self, path: str, key: str, asked: Sequence[tuple[str, str]]) -> list[Answer]:
        """Return all answers, page by page: an archive may give fewer at once than it is asked."""
        found: dict[str, Answer] = {}
        limit = max(self.settings.max_studies, self.settings.max_study_files)
        while True:
            pages = [("limit", str(PAGE)), ("offset", str(len(found)))]
            page = self._json(path, [*asked, *pages])
            # One that knows no pages answers the same again.
            new = {uid: answer for answer in page if (uid := _uid(answer, key)) not in found}
            found.update(new)
            if len(found) > limit:
                self.watch.fail(
                    f"the archive answers a query more than {limit} times; ask for fewer studies, "
                    "or raise pacs.max_studies or pacs.max_study_files.",
                    final=True,
                )
                self.watch.check()
            if not new:
                return list(found.values())

    def _json(self, path: str, asked: Sequence[tuple[str, str]]) -> list[Answer]:
        content = bytearray()
        with self._response(path, asked, "application/dicom+json") as response:
            for chunk in self._chunks(response):
                content += chunk
                if len(content) > MAX_REPLY_BYTES:
                    raise TransferError("the archive answers a query with more than 32 MiB.")
        self.watch.settle(len(content))
        if not content:
            return []
        try:
            answers = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise TransferError(NONSENSE) from error
        if not isinstance(answers, list) or not all(isinstance(each, dict) for each in answers):
            raise TransferError(NONSENSE)
        return answers

    @contextmanager
    def _response(
        self, path: str, asked: Sequence[tuple[str, str]], accept: str
    ) -> Iterator[httpx.Response]:
        try:
            # Wildcards as they are: Orthanc for one does not know them when they are escaped.
            query = urlencode(list(asked), safe="*?", quote_via=quote)
            request = self.client.build_request(
                "GET",
                f"{path}?{query}" if query else path,
                headers={"Accept": accept},
                extensions={"trace": self._trace},
            )
            response = self.client.send(request, stream=True)
            try:
                _check_status(response)
                yield response
            finally:
                response.close()
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise TransferError(
                "the archive cannot be reached; check pacs.host, pacs.port, pacs.tls and the "
                "network."
            ) from error
        except (httpx.HTTPError, httpx.StreamError) as error:
            self.watch.check()
            raise TransferError(BROKE_OFF) from error

    def _chunks(self, response: httpx.Response) -> Iterator[bytes]:
        for chunk in response.iter_raw(CHUNK_BYTES):
            self.watch.count(len(chunk))
            yield chunk

    def _trace(self, event: str, detail: Mapping[str, Any]) -> None:
        if event in OPENED:
            connection = detail["return_value"].get_extra_info("socket")
            if connection is not None:
                self.watch.opened(connection)


def _check_status(response: httpx.Response) -> None:
    code = response.status_code
    if code in (401, 403):
        raise TransferError(
            "the archive refuses the login; correct what pacs.credentials points to."
        )
    if code == 404:
        raise _Absent("the archive knows no such study or service; check pacs.root.")
    if code not in (200, 204, 206):
        raise TransferError(f"the archive answers with HTTP status {code}.")
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise TransferError(
            "the archive sends compressed content that was not asked for; it was not unfolded."
        )


def _texts(answer: Answer, name: str) -> list[str]:
    element = answer.get(TAGS[name], {})
    values = element.get("Value", []) if isinstance(element, dict) else []
    if not isinstance(values, list):
        raise TransferError(NONSENSE)
    return [str(value) for value in values if isinstance(value, str | int | float)]


def _text(answer: Answer, name: str) -> str:
    texts = _texts(answer, name)
    return texts[0].strip() if texts else ""


def _uid(answer: Answer, name: str) -> str:
    text = _text(answer, name)
    if not is_uid(text):
        raise TransferError(NONSENSE)
    return text


def _number(answer: Answer, name: str) -> int:
    text = _text(answer, name)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
