"""Questions whose answers the centre sees as one sum: the exact Cox regression, and its like.

Each class of answer needs to know what it is the sum of when nobody answered (its labels); the rest
is `protocol.stats.vectors`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from privacy.secure_sum.quantise import FixedPoint
from protocol.errors import ConfigError
from protocol.payload import Question, with_secure
from protocol.stats.cox import CoxSums
from protocol.stats.cox_residuals import CoxResiduals
from protocol.stats.sums import Sums
from protocol.stats.vectors import from_vector, to_vector
from server.centre import Centre
from server.secure_sum import SecureSession, open_session, secure_sum

__all__ = ["NOBODY", "SecureQuestions"]

FloatArray = npt.NDArray[np.float64]
# What the hospitals' residuals are related to; `client.cox_residuals`' default.
TRANSFORM = "log"

# By what is wanted: (columns, coefficients, ties) to the sums of nobody.
NOBODY: dict[str, Callable[[Sequence[str], FloatArray, str], Sums]] = {
    "sums": lambda names, beta, ties: CoxSums.empty(names, beta, ties),
    "residuals": lambda names, beta, ties: CoxResiduals.empty(names, beta, TRANSFORM),
}


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
        self, want: str, columns: Sequence[str], beta: FloatArray, agreed: dict[str, Any]
    ) -> tuple[tuple[str, ...], Sums]:
        """Return who answered, in the study's order, and the sum of their answers.

        Raises
        ------
        QuorumError
            If too few answer or help to open the sum.
        ConfigError
            If there is no such sum.
        """
        study = self.centre.study
        section = study.secure_aggregation
        if section is None or want not in NOBODY:
            raise ConfigError(
                f"There is no secure sum of {want}; leave secure_aggregation or that out."
            )
        nobody = NOBODY[want](columns, np.asarray(beta, np.float64), study.regression.ties)
        session = self._opened()
        call = session.round_call()
        topic = self.message_type.partition(".")[2]
        plain = Question(study, topic, agreed).to_records()
        self.centre.progress.step(self.message_type, 0, len(session.nodes))
        total = secure_sum(
            session,
            with_secure(plain, call.to_dict()),
            self.message_type,
            round_id=call.round_id,
            size=to_vector(nobody).size,
            word_bits=64,
            group=topic,
        )
        self.centre.note(self.message_type, total.active, total.refused)
        self.centre.progress.step(self.message_type, len(total.active), len(session.nodes))
        values = FixedPoint(section.sum_step_bits, 64).decode(total.words)
        present = tuple(site for site in self.sites if site in total.active)
        return present, from_vector(nobody, values)

    def _opened(self) -> SecureSession:
        if self._session is None:
            centre = self.centre
            nodes = {site: centre.nodes[site] for site in self.sites}
            self._session = open_session(centre.grid, nodes, centre.study, self.message_type)
        return self._session
