"""Reading foreign files without their contents reaching a log.

pydicom warns about odd values by quoting them, through `warnings` and through its logger; a name in
the wrong field would end up in a node's log file.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from pydicom import config as pydicom_config

__all__ = ["quietly"]


@contextmanager
def quietly() -> Iterator[None]:
    """Read without value checks, warnings or log lines of pydicom.

    Real archives hold UIDs with leading zeros and dates of day 0; they harm nobody.
    """
    logger = logging.getLogger("pydicom")
    before = logger.disabled
    logger.disabled = True
    try:
        with warnings.catch_warnings(), pydicom_config.disable_value_validation():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = before
