"""The learning rate over rounds."""

import pytest

from client.schedule import round_learning_rate
from protocol.training_config import LocalTraining

OPTIONS = LocalTraining(learning_rate=0.01)


def test_it_starts_at_the_peak_falls_and_ends_at_two_percent() -> None:
    rates = [round_learning_rate(OPTIONS, r, 10) for r in range(1, 11)]
    assert rates[0] == 0.01
    assert rates[-1] == pytest.approx(0.0002)
    assert rates == sorted(rates, reverse=True)


def test_without_decay_or_with_one_round_it_is_the_peak() -> None:
    constant = LocalTraining(learning_rate=0.01, round_decay="none")
    assert {round_learning_rate(constant, r, 10) for r in range(1, 11)} == {0.01}
    assert round_learning_rate(OPTIONS, 1, 1) == 0.01
