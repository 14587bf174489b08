"""Classic DICOM: C-FIND, then C-GET over the same association or C-MOVE to a service of our own."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE, AllStoragePresentationContexts, build_context, build_role, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StudyRootQueryRetrieveInformationModelFind as FIND,
)
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StudyRootQueryRetrieveInformationModelGet as GET,
)
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StudyRootQueryRetrieveInformationModelMove as MOVE,
)

from client.intake.headers import UNREADABLE
from client.pacs.archive import Image, Series, Study, StudyQuery, Wanted, is_uid
from client.pacs.association import BROKE_OFF, NONSENSE, PDU_BYTES, associated, bounded, silent
from client.pacs.receiver import Receiver
from client.pacs.settings import PacsSettings
from client.pacs.tls import client_context, server_context
from client.pacs.watch import Stop, Watch
from protocol.errors import ConfigError, TransferError

__all__ = ["ClassicArchive"]

# One context each, so that an image comes in the syntax it is kept in and is not compressed anew.
SYNTAXES = (
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.5",
    "1.2.840.10008.1.2.4.50",
    "1.2.840.10008.1.2.4.51",
    "1.2.840.10008.1.2.4.57",
    "1.2.840.10008.1.2.4.70",
    "1.2.840.10008.1.2.4.80",
    "1.2.840.10008.1.2.4.81",
    "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.4.91",
)
MAX_CONTEXTS = 128
IMAGES_AT_ONCE = 64
PENDING = (0xFF00, 0xFF01)
# Some or all of the images asked for could not be sent; which ones, the receiver knows.
PARTLY = (0xB000, 0xA702)
STORED, NOT_UNDERSTOOD, NO_RESOURCES = 0x0000, 0xC000, 0xA700


class ClassicArchive:
    """An archive that speaks classic DICOM; see `client.pacs.archive.Archive`."""

    def __init__(self, settings: PacsSettings, site_dir: Path, watch: Watch) -> None:
        self.settings, self.site_dir, self.watch = settings, site_dir, watch
        self.receiver: Receiver | None = None
        self.stack = ExitStack()
        self.tls: Any = None
        if settings.tls is not None:
            self.tls = (client_context(site_dir, settings.tls), settings.host)

    def __enter__(self) -> "ClassicArchive":
        self.stack.enter_context(silent(self.watch))
        if self.settings.protocol == "c-move":
            self.stack.callback(self._serve().shutdown)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stack.close()

    def find(self, query: StudyQuery) -> list[Study]:
        wanted = _identifier(
            "STUDY",
            StudyInstanceUID="",
            StudyDate=_range(query.first_day, query.last_day),
            ModalitiesInStudy=query.modality,
            StudyDescription=query.description,
            AccessionNumber=query.accession,
        )
        with self._line([build_context(FIND)]) as line:
            return [_study(answer) for answer in self._find(line, wanted)]

    def series(self, study: str) -> list[Series]:
        wanted = _identifier(
            "SERIES",
            StudyInstanceUID=study,
            SeriesInstanceUID="",
            Modality="",
            NumberOfSeriesRelatedInstances=None,
        )
        with self._line([build_context(FIND)]) as line:
            found = []
            # All of them first: one association answers one query at a time.
            for answer in list(self._find(line, wanted)):
                uid, modality = _uid(answer, "SeriesInstanceUID"), _text(answer, "Modality")
                # Few archives leave the modality out; then only the images themselves tell.
                if modality and modality not in self.settings.modalities:
                    continue
                images = self._images(line, study, uid)
                announced = _number(answer, "NumberOfSeriesRelatedInstances")
                found.append(Series(uid, modality, max(announced, len(images)), images))
            return found

    def retrieve(self, study: str, wanted: Sequence[Wanted], to: Receiver) -> None:
        self.receiver = to
        try:
            if self.settings.protocol == "c-move":
                with self._line([build_context(MOVE)]) as line:
                    for request in _requests(study, wanted):
                        own = self.settings.own_ae_title
                        self._finish(line.send_c_move(request, own, MOVE))
                return
            classes = sorted({image.sop_class for part in wanted for image in part.images})
            classes = classes[: (MAX_CONTEXTS - 1) // len(SYNTAXES)]
            contexts = [build_context(c, syntax) for c in classes for syntax in SYNTAXES]
            roles = [build_role(c, scp_role=True) for c in classes]
            with self._line([build_context(GET), *contexts], roles) as line:
                for request in _requests(study, wanted):
                    self._finish(line.send_c_get(request, GET))
        finally:
            self.receiver = None

    def _line(
        self, contexts: list[Any], roles: Sequence[Any] = ()
    ) -> AbstractContextManager[Association]:
        handlers = [(evt.EVT_C_STORE, self._store)]
        return associated(self.settings, self.watch, self.tls, contexts, roles, handlers)

    def _find(self, line: Association, wanted: Dataset) -> Iterator[Dataset]:
        limit = max(self.settings.max_studies, self.settings.max_study_files)
        for count, (status, answer) in enumerate(line.send_c_find(wanted, FIND)):
            self.watch.check()
            self.watch.settle(0)
            code = status.get("Status")
            if code is None:
                raise TransferError(BROKE_OFF)
            if code == 0:
                return
            if code not in PENDING:
                raise TransferError(f"the archive refuses a query (status 0x{code:04X}).")
            if answer is None:
                raise TransferError(NONSENSE)
            if count >= limit:
                self.watch.fail(
                    f"the archive answers a query more than {limit} times; ask for fewer studies, "
                    "or raise pacs.max_studies or pacs.max_study_files.",
                    final=True,
                )
                self.watch.check()
            yield answer

    def _images(self, line: Association, study: str, series: str) -> tuple[Image, ...]:
        wanted = _identifier(
            "IMAGE",
            StudyInstanceUID=study,
            SeriesInstanceUID=series,
            SOPInstanceUID="",
            SOPClassUID="",
        )
        found = {}
        for answer in self._find(line, wanted):
            uid = _uid(answer, "SOPInstanceUID")
            found[uid] = Image(uid, _text(answer, "SOPClassUID") or "1.2.840.10008.5.1.4.1.1.4")
        return tuple(found.values())

    def _finish(self, responses: Iterator[tuple[Dataset, Dataset | None]]) -> None:
        for status, _ in responses:
            self.watch.check()
            code = status.get("Status")
            if code is None:
                raise TransferError(BROKE_OFF)
            if code not in (*PENDING, *PARTLY, 0):
                raise TransferError(f"the archive refuses to send (status 0x{code:04X}).")

    def _serve(self) -> AE:
        settings = self.settings
        entity = AE(settings.own_ae_title)
        entity.require_called_aet = True
        entity.require_calling_aet = list(settings.sender_ae_titles or (settings.ae_title,))
        entity.acse_timeout = settings.connect_timeout_s
        entity.network_timeout = entity.dimse_timeout = settings.silence_timeout_s
        entity.maximum_pdu_size = PDU_BYTES
        for context in AllStoragePresentationContexts:
            entity.add_supported_context(str(context.abstract_syntax), list(SYNTAXES))
        tls = None if settings.tls is None else server_context(self.site_dir, settings.tls)
        handlers = [
            (evt.EVT_CONN_OPEN, bounded(settings, self.watch)),
            (evt.EVT_C_STORE, self._store),
        ]
        try:
            entity.start_server(
                (str(settings.own_host), int(settings.own_port or 0)),
                block=False,
                ssl_context=tls,
                evt_handlers=handlers,  # type: ignore[arg-type]
            )
        except OSError as error:
            raise ConfigError(
                f"port {settings.own_port} cannot be opened for the archive to call back "
                f"({error.strerror}); correct pacs.own_host and pacs.own_port."
            ) from error
        return entity

    def _store(self, event: evt.Event) -> int:
        receiver = self.receiver
        if receiver is None or self.watch.failure is not None:
            return NO_RESOURCES
        try:
            draft = receiver.draft()
            try:
                draft.write(event.encoded_dataset())
                return STORED if receiver.finish(draft) else NOT_UNDERSTOOD
            finally:
                draft.discard()
        except Stop:
            return NO_RESOURCES
        except OSError as error:
            self.watch.fail(
                f"the store cannot be written ({error.strerror}); make room or mend its rights.",
                final=True,
            )
            return NO_RESOURCES


def _identifier(level: str, **keys: Any) -> Dataset:
    dataset = Dataset()
    dataset.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(dataset, keyword, value)
    return dataset


def _requests(study: str, wanted: Sequence[Wanted]) -> Iterator[Dataset]:
    for part in wanted:
        keys = {"StudyInstanceUID": study, "SeriesInstanceUID": part.series}
        if part.whole:
            yield _identifier("SERIES", **keys)
            continue
        uids = [image.uid for image in part.images]
        for start in range(0, len(uids), IMAGES_AT_ONCE):
            chunk = uids[start : start + IMAGES_AT_ONCE]
            yield _identifier("IMAGE", **keys, SOPInstanceUID=chunk)


def _range(first_day: str, last_day: str) -> str:
    return f"{first_day}-{last_day}" if first_day or last_day else ""


def _study(answer: Dataset) -> Study:
    return Study(
        uid=_uid(answer, "StudyInstanceUID"),
        day=_text(answer, "StudyDate"),
        modalities=tuple(filter(None, _text(answer, "ModalitiesInStudy").split("\\"))),
        description=_text(answer, "StudyDescription"),
        accession=_text(answer, "AccessionNumber"),
    )


def _text(answer: Dataset, keyword: str) -> str:
    try:
        value = answer.get(keyword)
        if value is None:
            return ""
        if not isinstance(value, str) and hasattr(value, "__iter__"):
            return "\\".join(str(each) for each in value)
        return str(value).strip("\0 ")
    except UNREADABLE as error:
        raise TransferError(NONSENSE) from error


def _uid(answer: Dataset, keyword: str) -> str:
    text = _text(answer, keyword)
    if not is_uid(text):
        raise TransferError(NONSENSE)
    return text


def _number(answer: Dataset, keyword: str) -> int:
    with suppress(ValueError):
        return max(0, int(_text(answer, keyword) or 0))
    return 0
