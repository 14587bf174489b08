"""Hospitals told by their updates: found where they differ, chance where they do not."""

import numpy as np

from privacy.audit.roc import area_under_curve
from privacy.audit.sites import likeness, origin_scores, participation_scores


def hospitals(
    difference: float, *, noise: float = 1.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    own = difference * rng.normal(size=(4, 1, 200)) + 5 * rng.normal(size=200)
    seen = own + noise * rng.normal(size=(4, 6, 200))
    origins = np.repeat(np.arange(4), 15)
    released = own[origins, 0] + noise * rng.normal(size=(60, 200))
    return seen, released, origins


def test_unlike_hospitals_are_told_apart() -> None:
    seen, released, origins = hospitals(0.5)
    scores, members, accuracy = origin_scores(seen, released, origins)
    assert scores.shape == members.shape == (60, 4)
    assert area_under_curve(scores, members) > 0.95
    assert accuracy > 0.9


def test_alike_hospitals_are_not() -> None:
    scores, members, accuracy = origin_scores(*hospitals(0.0))
    assert 0.35 < area_under_curve(scores, members) < 0.65
    assert accuracy < 0.5


def test_scale_and_what_all_share_do_not_matter() -> None:
    seen, released, _ = hospitals(0.5)
    found = likeness(seen, released)
    np.testing.assert_allclose(likeness(3 * seen + 7, 3 * released + 7), found, atol=1e-12)
    assert np.abs(found).max() <= 1 + 1e-12


def test_participation_shows_in_the_mean() -> None:
    seen, released, _ = hospitals(0.5)
    rng = np.random.default_rng(1)
    took_part = rng.random((40, 4)) < 0.5
    took_part[~took_part.any(axis=1), 0] = True
    means = np.stack(
        [
            np.mean(
                [released[15 * site + rng.integers(15)] for site in np.flatnonzero(row)], axis=0
            )
            for row in took_part
        ]
    )
    scores, members = participation_scores(seen, means, took_part)
    assert area_under_curve(scores, members) > 0.9
