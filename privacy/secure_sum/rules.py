"""What a hospital demands before it masks a vector, and before it helps to take masks off.

The threshold. With ``t`` of ``n`` hospitals needed to restore a seed, and ``c`` hospitals on the
side of a centre that tells each of the others what it likes, a seed falls only if ``t - c`` honest
hospitals were told the story that goes with it. A vector is bare when both its self mask and its
masks with all others fall, and no hospital tells both a share of the self mask of u (u is active)
and of u's masks with others from their deposits (u dropped), as it answers once a round. So both
fall for one u only if ``2 (t - c) <= n - c``; with ``t > n/2`` that needs a hospital on the
centre's side, with ``t > 2n/3`` at least n/3 of them. Hence `least_threshold`: what Bonawitz et al.
2017 ask against a malicious server. It costs availability: 3 hospitals cannot lose one in a round,
10 can lose 3.

Telling unlike stories can also shrink the group whose sum is opened, as this protocol has no
exchange in which the hospitals compare what they were told; `smallest_group` bounds by how much.
"""

from collections.abc import Collection, Sequence

from protocol.errors import PrivacyError

__all__ = ["LEAST_COHORT", "check_cohort", "check_opening", "least_threshold", "smallest_group"]

# The sum of two tells each what the other sent.
LEAST_COHORT = 3


def least_threshold(num_hospitals: int) -> int:
    """Return the smallest whole number above two thirds of the cohort."""
    return 2 * num_hospitals // 3 + 1


def smallest_group(num_hospitals: int, threshold: int, colluding: int = 0) -> int:
    """Return how many honest hospitals' vectors are in any sum a lying centre can open, at least.

    Every honest hospital (``h = n - c`` of them) is told once who is active, and insists on ``t``.
    With ``m = t - c``, a hospital whose vector is in the sum is called active to at most h of them,
    and one that is not must have been called dropped to m, so active to at most ``h - m``. From
    ``|S| h + (h - |S|)(h - m) >= h m`` follows ``|S| >= h (2m - h) / m``.

    Returns
    -------
    int
        0 where a centre with so many on its side can open a single vector.
    """
    honest, needed = num_hospitals - colluding, threshold - colluding
    if needed <= 0:
        return 0
    return max(-(-honest * (2 * needed - honest) // needed), 0)


def check_cohort(
    cohort: Sequence[str], me: str, threshold: int, peers: Collection[str], min_hospitals: int
) -> None:
    """Refuse to take part in a sum of too few, of strangers, or with too low a threshold.

    Parameters
    ----------
    peers : collection of str
        Hospitals whose fingerprints stand in this hospital's own file.
    min_hospitals : int
        This hospital's own minimum.

    Raises
    ------
    PrivacyError
    """
    least = max(LEAST_COHORT, min_hospitals)
    if list(cohort) != sorted(set(cohort)) or me not in cohort:
        raise PrivacyError(
            "The hospitals of a secure sum are not named once each and sorted, or this one is not "
            "among them; both ends must run the same version."
        )
    if len(cohort) < least:
        raise PrivacyError(
            f"A secure sum of {len(cohort)} hospitals was asked for, and this hospital takes part "
            f"in sums of {least} or more; let more hospitals join the study."
        )
    strangers = [site for site in cohort if site != me and site not in peers]
    if strangers:
        raise PrivacyError(
            f"{strangers[0]} is to take part in a secure sum and this hospital has no fingerprint "
            "of it; get it from that hospital and add it to secure_aggregation.peers in site.yaml."
        )
    lowest = max(least_threshold(len(cohort)), min(min_hospitals, len(cohort)))
    if not lowest <= threshold <= len(cohort):
        raise PrivacyError(
            f"A secure sum with a threshold of {threshold} of {len(cohort)} hospitals was asked "
            f"for, expected {lowest} to {len(cohort)}; set secure_aggregation.threshold."
        )


def check_opening(
    cohort: Sequence[str],
    me: str,
    threshold: int,
    active: Sequence[str],
    dropped: Sequence[str],
) -> None:
    """Refuse to help to open a sum when the story of who dropped out cannot be true.

    Raises
    ------
    PrivacyError
        If a hospital is said to be both active and dropped, somebody is unaccounted for or a
        stranger, fewer than ``threshold`` are active, or this hospital, which sent its vector, is
        said to have dropped.
    """
    both = sorted(set(active) & set(dropped))
    if both:
        raise PrivacyError(
            f"The centre says that {both[0]} is active and has dropped out, which would bare its "
            "vector; nothing was told, so ask the centre's operator."
        )
    told = [*active, *dropped]
    if sorted(told) != sorted(cohort):
        raise PrivacyError(
            "The centre names other hospitals than those that agreed on keys, or one of them "
            "twice; nothing was told, so ask the centre's operator."
        )
    if me not in active:
        raise PrivacyError(
            "The centre says that this hospital dropped out, and it did send its vector; nothing "
            "was told, and the others can go on without it."
        )
    if len(active) < threshold:
        raise PrivacyError(
            f"{len(active)} hospitals are left in a secure sum, expected {threshold} or more; "
            "nothing was told, so ask again when more can take part."
        )
