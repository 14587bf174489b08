"""The section ``pacs`` of ``site.yaml``: where the archive is, and how much it may send."""

import os
import re
import stat
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from protocol.errors import ConfigError
from protocol.yaml_files import Frozen

__all__ = ["Credentials", "PacsSettings", "Tls", "authorization"]

AE_TITLE = r"^[A-Za-z0-9_.-]([A-Za-z0-9_. -]{0,14}[A-Za-z0-9_.-])?$"
CODE = re.compile(r"[A-Z0-9]{1,16}")
LOOPBACK = ("127.0.0.1", "::1", "localhost")
MAX_SECRET_BYTES = 8192
MEGABYTE = 1_000_000


class Tls(Frozen):
    """Files of the transport's encryption, all inside the site's directory.

    Attributes
    ----------
    authority : str or None
        Certificates (PEM) that the archive's must descend from; ``None``: the system's.
    certificate, key : str or None
        The site's own, where the archive asks for one; C-MOVE needs them: the archive calls back.
    """

    authority: str | None = None
    certificate: str | None = None
    key: str | None = None

    @model_validator(mode="after")
    def _together(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("give both certificate and key, or neither")
        return self


class Credentials(Frozen):
    """Where the login for DICOMweb is: a file of mode 0600, or an environment variable.

    Either holds one line: ``user:password``, or ``Bearer`` and a token.
    """

    file: str | None = None
    environment: str | None = Field(None, pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.file is None) == (self.environment is None):
            raise ValueError("give either file or environment")
        return self


class PacsSettings(Frozen):
    """Attributes whose names do not say it all.

    Attributes
    ----------
    protocol : str
        ``c-get`` and ``c-move`` are classic DICOM; with ``c-move`` the archive calls back, so that
        it must know ``own_ae_title`` under ``own_host`` and ``own_port``.
    ae_title, own_ae_title : str
        Names of the archive and of this site in classic DICOM.
    sender_ae_titles : tuple of str
        Under which names the archive may call back; empty: ``ae_title``.
    root : str
        Path of the DICOMweb service.
    modalities : tuple of str
        Series of other modalities stay where they are: reports and screenshots hold names.
    files_per_second, megabytes_per_second : float or None
        Upper limits, so that the archive serves its clinicians first; ``None``: as fast as it goes.
    silence_timeout_s, study_timeout_s : float
        The longest time without a byte; the longest time for one attempt at a study, waiting for
        the limits above not counted.
    retries : int
        How often a study that broke off is tried again at once.
    max_file_megabytes, max_study_megabytes, max_study_files, max_studies : int
        Beyond which a study is not fetched, and a query refused.
    """

    protocol: Literal["c-get", "c-move", "dicomweb"]
    host: str = Field(pattern=r"^[A-Za-z0-9_.:-]{1,253}$")
    port: int = Field(ge=1, le=65535)
    ae_title: str = Field("ANY-SCP", pattern=AE_TITLE)
    own_ae_title: str = Field("CONCORS", pattern=AE_TITLE)
    own_host: str | None = Field(None, pattern=r"^[A-Za-z0-9_.:-]{1,253}$")
    own_port: int | None = Field(None, ge=1, le=65535)
    sender_ae_titles: tuple[str, ...] = ()
    root: str = Field("/dicom-web", pattern=r"^(/[A-Za-z0-9_.~-]+)*/?$")
    tls: Tls | None = None
    credentials: Credentials | None = None
    modalities: tuple[str, ...] = Field(("MR", "SEG"), min_length=1)
    files_per_second: float | None = Field(None, gt=0)
    megabytes_per_second: float | None = Field(None, gt=0)
    connect_timeout_s: float = Field(20.0, gt=0, le=600)
    silence_timeout_s: float = Field(120.0, gt=0, le=3600)
    study_timeout_s: float = Field(3600.0, gt=0, le=86_400)
    retries: int = Field(2, ge=0, le=10)
    max_file_megabytes: int = Field(512, ge=1, le=1024)
    max_study_megabytes: int = Field(20_000, ge=1)
    max_study_files: int = Field(20_000, ge=1)
    max_studies: int = Field(10_000, ge=1)

    @field_validator("modalities")
    @classmethod
    def _codes(cls, modalities: tuple[str, ...]) -> tuple[str, ...]:
        if not all(CODE.fullmatch(code) for code in modalities):
            raise ValueError("a modality is a code of capital letters and digits, such as MR")
        return modalities

    @model_validator(mode="after")
    def _fits_protocol(self) -> Self:
        if self.protocol == "c-move":
            if self.own_host is None or self.own_port is None:
                raise ValueError("c-move needs own_host and own_port, where the archive calls back")
            if self.tls is not None and self.tls.certificate is None:
                raise ValueError("c-move with tls needs tls.certificate and tls.key")
        if self.credentials is not None:
            if self.protocol != "dicomweb":
                raise ValueError("credentials stand only with dicomweb; remove them")
            if self.tls is None and self.host not in LOOPBACK:
                raise ValueError("credentials would travel in clear; give tls")
        return self

    @property
    def max_file_bytes(self) -> int:
        return self.max_file_megabytes * MEGABYTE

    @property
    def max_study_bytes(self) -> int:
        return self.max_study_megabytes * MEGABYTE


def authorization(site_dir: Path, credentials: Credentials) -> tuple[str, str] | str:
    """Return (user, password), or the value of the Authorization header for a token.

    Raises
    ------
    ConfigError
        If there is no login, or others than its owner can read the file. The sentence never holds
        what was read.
    """
    if credentials.environment is not None:
        text = os.environ.get(credentials.environment, "")
        where = f"the environment variable {credentials.environment}"
    else:
        text = _private_line(site_dir, str(credentials.file))
        where = "the file of pacs.credentials"
    text = text.strip()
    if text.startswith("Bearer ") and text.isprintable():
        return text
    user, colon, password = text.partition(":")
    if not (user and colon and password and text.isprintable()):
        raise ConfigError(
            f"{where} holds no login; write one line, user:password or Bearer and a token."
        )
    return user, password


def _private_line(site_dir: Path, relative: str) -> str:
    root = site_dir.resolve()
    path = (root / relative).resolve()
    if not path.is_relative_to(root):
        raise ConfigError("pacs.credentials.file leads out of the site's directory; put it below.")
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as stream:
            state = os.fstat(stream.fileno())
            if not stat.S_ISREG(state.st_mode) or stat.S_IMODE(state.st_mode) & 0o077:
                raise ConfigError(
                    "the file of pacs.credentials can be read by others than its owner; "
                    "set its mode to 0600."
                )
            return stream.read(MAX_SECRET_BYTES).decode("utf-8")
    except (OSError, ValueError) as error:
        raise ConfigError(
            "the file of pacs.credentials cannot be read; correct pacs.credentials.file."
        ) from error
