"""Keep freed memory in the process instead of handing it back after every message.

A consortium in one process makes and frees a few models per hospital and round. By default glibc
returns the top of the heap to the system as soon as 128 KiB are free there and maps every larger
block afresh, so each of those models is paged in anew: five times the cost of copying it.
"""

import ctypes

__all__ = ["keep_freed_memory"]

# Parameters of mallopt(3), from malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
TRIM_BYTES, MMAP_BYTES = 256 * 2**20, 32 * 2**20


def keep_freed_memory() -> bool:
    """Let up to 256 MiB of freed memory stay in the process; return whether that was possible.

    It is where the C library is glibc; elsewhere nothing changes. Both thresholds are set, since
    setting either one alone freezes the other at its small default.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    done = (mallopt(M_TRIM_THRESHOLD, TRIM_BYTES), mallopt(M_MMAP_THRESHOLD, MMAP_BYTES))
    return done == (1, 1)
