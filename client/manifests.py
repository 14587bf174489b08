"""The studies a hospital was asked to take part in, and what its engineer decided of each.

One file a study in ``.concors/studies/``, named by the study's hash: the manifest to the byte as
the coordinator signed it, and the decision. A hospital that has joined a consortium takes part in
what somebody there has approved, and in nothing else.
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, cast

from pydantic import Field

from client.membership import load_welcome
from client.policy import SitePolicy, load_policy
from client.site import load_site
from deployment.papers import read_manifest
from deployment.private_files import write_atomic
from protocol import audit
from protocol.code import code_hash
from protocol.config import Study
from protocol.designs import derived_hashes
from protocol.errors import ConfigError, PaperError, PolicyError
from protocol.yaml_files import Frozen, parse

__all__ = [
    "Decision",
    "Known",
    "Traffic",
    "audit_log",
    "check_terms",
    "covering",
    "decide",
    "find",
    "known",
    "receive",
]

Decision = Literal["approved", "waiting", "declined"]
DECISIONS = ("approved", "waiting", "declined")
NETWORKS = ("sort", "segment", "prognosis")
MIN_DIGITS = 8


class Traffic(Frozen):
    """What the training of one stage sends between this hospital and the server in a round."""

    weights: str | None
    rounds: int = Field(ge=0)
    down_mb: float = Field(ge=0, allow_inf_nan=False)
    up_mb: float = Field(ge=0, allow_inf_nan=False)


@dataclass(frozen=True)
class Known:
    """A study the hospital was asked to take part in.

    Attributes
    ----------
    study_hash : str
        64 hexadecimal digits; by it the study is approved.
    traffic : dict of str to Traffic
        By stage.
    text : str
        The manifest as it was signed.
    """

    study: Study
    study_hash: str
    traffic: dict[str, Traffic]
    serial: int
    expires: str
    decision: Decision
    text: str


def audit_log(site_dir: Path) -> Path:
    """Return the hospital's audit log; its folder is made if absent."""
    folder = site_dir / ".concors"
    folder.mkdir(exist_ok=True)
    return folder / "audit.jsonl"


def receive(site_dir: Path, text: str, *, now: datetime | None = None) -> Decision:
    """Take up a manifest and return what the hospital has decided of its study so far.

    Parameters
    ----------
    text : str
        As the server sent it.

    Raises
    ------
    PaperError
        If the hospital is in no consortium, or the manifest is altered, expired, older than one it
        has seen of that study, or of another coordinator.
    PolicyError
        If the hospital runs other code, or its policy does not allow the study.
    """
    welcome = load_welcome(site_dir)
    paper = read_manifest(
        text, coordinator_key=welcome["coordinator_key"], now=now or datetime.now(UTC)
    )
    if paper["consortium"] != welcome["consortium"]:
        raise PaperError("The manifest is of another consortium; ask its sender for the right one.")
    given = _known(paper, "waiting", text)
    newest = max((each.serial for each in known(site_dir) if _same_name(each, given)), default=0)
    if given.serial < newest:
        raise PaperError(
            f"The manifest of {given.study.name} has the serial {given.serial}, and this hospital "
            f"has seen {newest}; an old one was sent again, so ask the coordinator for the newest."
        )
    if paper["code_hash"] != code_hash():
        raise PolicyError(
            f"The study runs with the code {paper['code_hash'][:8]} of version "
            f"{paper['version'][:32]}, and here {code_hash()[:8]} is installed; install the same "
            "at the server and here."
        )
    policy = load_policy(site_dir, load_site(site_dir))
    check_terms(policy, given.study, given.traffic)
    before = find(site_dir, given.study_hash)
    decision: Decision = "waiting"
    if given.study_hash in policy.studies.approved:
        decision = "approved"
    elif before is not None and before.traffic == given.traffic:
        decision = before.decision
    if before is None or (before.text, before.decision) != (text, decision):
        _write(site_dir, given, decision)
        audit.append(audit_log(site_dir), "manifest", _told(given, decision), sync=True)
    return decision


def check_terms(policy: SitePolicy, study: Study, traffic: dict[str, Traffic]) -> None:
    """Refuse a study that the hospital's policy does not allow.

    Raises
    ------
    PolicyError
        Naming what the study has and what is allowed.
    """
    terms = policy.studies
    sections = [getattr(study, stage) for stage in NETWORKS if stage in study.stages]
    _only("stages", study.stages, terms.stages)
    _only("networks", [section.network.name for section in sections], terms.networks)
    _only("strategies", [section.strategy.name for section in sections], terms.strategies)
    for stage, each in traffic.items():
        largest = max(each.down_mb, each.up_mb)
        if largest > policy.max_payload_mb:
            raise PolicyError(
                f"A round of {stage[:32]} would send {largest:.0f} MB, and this hospital's policy "
                f"allows {policy.max_payload_mb:.0f} MB; use a smaller network, or ask it to allow "
                "more."
            )


def _only(kind: str, used: Any, allowed: tuple[str, ...] | None) -> None:
    if allowed is None:
        return
    for name in used:
        if name not in allowed:
            raise PolicyError(
                f"The study has '{name}' among its {kind}, and this hospital's policy allows "
                f"{', '.join(allowed) or 'none'}; leave it out, or ask the hospital to allow it."
            )


def known(site_dir: Path) -> list[Known]:
    """Return the studies the hospital was asked to take part in, by name and then age."""
    found = [_read(path) for path in _folder(site_dir).glob("*.json")]
    return sorted(found, key=lambda each: (each.study.name, each.serial, each.study_hash))


def find(site_dir: Path, study_hash: str) -> Known | None:
    """Return a study by its whole hash; None where the hospital was not asked."""
    path = _folder(site_dir) / f"{study_hash}.json"
    return _read(path) if path.is_file() else None


def covering(site_dir: Path, study_hash: str) -> Known | None:
    """Return the study whose decision holds for this one: itself, or that whose design made it.

    Which studies a design is made of follows from the study that was shown; it is worked out here.
    """
    exact = find(site_dir, study_hash)
    if exact is not None:
        return exact
    made = [each for each in known(site_dir) if study_hash in derived_hashes(each.study)]
    # Two studies may differ in nothing that their designs' studies have: one approval is enough.
    return max(made, key=lambda each: (each.decision == "approved", each.serial), default=None)


def decide(site_dir: Path, digits: str, decision: Decision) -> Known:
    """Write down what the hospital's engineer decided of a study.

    Parameters
    ----------
    digits : str
        The study's hash, or its first 8 digits or more; spaces do not count.

    Raises
    ------
    ConfigError
        If the digits name no study, or more than one.
    """
    digits = "".join(digits.split()).lower()
    found = [each for each in known(site_dir) if each.study_hash.startswith(digits)]
    if len(digits) < MIN_DIGITS or len(found) != 1:
        raise ConfigError(
            f"{len(found)} studies have a hash that begins so; give at least {MIN_DIGITS} digits "
            "of one that concors-client studies lists."
        )
    (chosen,) = found
    _write(site_dir, chosen, decision)
    audit.append(audit_log(site_dir), decision, _told(chosen, decision), sync=True)
    return chosen


def _folder(site_dir: Path) -> Path:
    return site_dir / ".concors" / "studies"


def _same_name(one: Known, other: Known) -> bool:
    return one.study.name == other.study.name


def _told(each: Known, decision: Decision) -> dict[str, Any]:
    return {
        "study": each.study.name,
        "hash": each.study_hash,
        "serial": each.serial,
        "decision": decision,
    }


def _known(paper: dict[str, Any], decision: Decision, text: str) -> Known:
    try:
        study = parse(Study, paper["study"], "The manifest's study")
        stages = paper["stages"]
        if not isinstance(stages, dict) or not set(stages) <= set(study.stages):
            raise ConfigError("The manifest's stages are not those of its study")
        traffic = {
            stage: parse(Traffic, each, "The manifest's stages") for stage, each in stages.items()
        }
    except ConfigError as error:
        raise PaperError(f"{error.sentence} Both ends must run the same version.") from error
    return Known(
        study, paper["study_hash"], traffic, paper["serial"], paper["expires"], decision, text
    )


def _write(site_dir: Path, each: Known, decision: Decision) -> None:
    folder = _folder(site_dir)
    folder.mkdir(parents=True, exist_ok=True)
    record = json.dumps({"decision": decision, "manifest": each.text})
    write_atomic(folder / f"{each.study_hash}.json", record.encode())


def _read(path: Path) -> Known:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        decision, text = record["decision"], record["manifest"]
        # Its signature was checked when it came; the folder is the hospital's own.
        paper = json.loads(text)
        good = decision in DECISIONS and paper["study_hash"] == path.stem
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PaperError(
            f"The record of the study {path.stem[:8]} in .concors/studies cannot be read; remove "
            "it, and the server will send the manifest again."
        ) from error
    if not good:
        raise PaperError(
            f"The record of the study {path.stem[:8]} in .concors/studies is not of that study; "
            "remove it, and the server will send the manifest again."
        )
    return _known(paper, cast(Decision, decision), text)
