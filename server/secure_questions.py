"""Questions whose answers the centre sees as one sum.

What a question is the sum of when nobody answered says `protocol.summed`. An opened sum is kept in
the run's folder: a hospital opens one question for one set of hospitals, so that a study that is
resumed with a hospital more or less goes on from the sums that it has.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from privacy.secure_sum.quantise import WordArray
from privacy.secure_sum.statistics import num_words, unpack_statistics
from protocol.addressed import with_secure
from protocol.arrays import Arrays, fingerprint
from protocol.documents import digest
from protocol.errors import ConfigError
from protocol.payload import Question
from protocol.secure_groups import role_in
from protocol.summed import nobody
from server.centre import Centre
from server.secure_session import SecureSession, open_session
from server.secure_sum import secure_sum

__all__ = ["SecureQuestions", "Summed"]


@dataclass(frozen=True)
class Summed:
    """The sum of hospitals' answers.

    Attributes
    ----------
    hospitals : tuple of str
        Whose answers are in it, in the study's order.
    total : dict
        Statistics by name, see `protocol.summed`.
    """

    hospitals: tuple[str, ...]
    total: dict[str, Any]


class SecureQuestions:
    """One session of secure sums about statistics; keys are agreed on with the first question.

    Parameters
    ----------
    message_type : str
        E.g. ``"query.cox"``.
    sites : sequence of str
        Who is asked.
    """

    def __init__(self, centre: Centre, message_type: str, sites: Sequence[str]) -> None:
        self.centre = centre
        self.message_type = message_type
        self.sites = tuple(sites)
        self._session: SecureSession | None = None

    def ask(
        self, agreed: dict[str, Any], arrays: Arrays | None = None, *, may_decline: bool = False
    ) -> Summed:
        """Return the sum of the hospitals' answers to one question.

        Parameters
        ----------
        may_decline : bool
            As in `server.centre.Centre.answers`.

        Raises
        ------
        QuorumError
            If too few answer or help to open the sum.
        PrivacyError
            If so many decline that there is no sum.
        ConfigError
            If the study has no secure sums.
        """
        study = self.centre.study
        section = study.secure_aggregation
        if section is None:
            raise ConfigError("The study has no secure_aggregation, so there is no sum to ask for.")
        role = role_in(study, self.sites[0])
        blank = nobody(self.message_type, study, agreed, role, arrays is not None)
        kept = self._kept(agreed, arrays)
        if kept.is_file():
            words, active = _read(kept)
        else:
            words, active = self._asked(agreed, arrays, num_words(blank), may_decline)
            _write(kept, words, active)
        present = tuple(site for site in self.sites if site in active)
        return Summed(present, unpack_statistics(blank, words, section.sum_step_bits))

    def _kept(self, agreed: dict[str, Any], arrays: Arrays | None) -> Path:
        content = {
            "study": self.centre.study.model_dump(mode="json", by_alias=True),
            "question": self.message_type,
            "sites": list(self.sites),
            "agreed": agreed,
            "model": None if arrays is None else fingerprint(arrays),
        }
        return self.centre.run_dir / "sums" / f"{self.message_type}-{digest(content)[:32]}.json"

    def _asked(
        self, agreed: dict[str, Any], arrays: Arrays | None, size: int, may_decline: bool
    ) -> tuple[WordArray, list[str]]:
        centre, topic = self.centre, self.message_type.partition(".")[2]
        session = self._opened()
        call = session.round_call()
        plain = Question(centre.study, topic, agreed, arrays).to_records()
        centre.progress.step(self.message_type, 0, len(session.nodes))
        total = secure_sum(
            session,
            with_secure(plain, call.to_dict()),
            self.message_type,
            round_id=call.round_id,
            size=size,
            word_bits=64,
            group=topic,
            may_decline=may_decline,
        )
        centre.note(self.message_type, total.active, total.refused)
        centre.progress.step(self.message_type, len(total.active), len(session.nodes))
        return total.words, total.active

    def _opened(self) -> SecureSession:
        if self._session is None:
            centre = self.centre
            nodes = {site: centre.nodes[site] for site in self.sites}
            self._session = open_session(centre.grid, nodes, centre.study, self.message_type)
        return self._session


def _write(path: Path, words: WordArray, active: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".new")
    content = {"hospitals": active, "words": words.tolist()}
    scratch.write_text(json.dumps(content), encoding="utf-8")
    scratch.replace(path)


def _read(path: Path) -> tuple[WordArray, list[str]]:
    content = json.loads(path.read_text(encoding="utf-8"))
    return np.array(content["words"], np.uint64), list(content["hospitals"])
