import numpy as np
import pytest
import torch
from scipy.integrate import quad

from protocol.errors import ConfigError, DataError
from shared_models.heads import HEADS
from shared_models.heads.competing_risks import competing_risks, incidence_at

GRID = np.array([6.0, 12.0, 24.0])
CUTS = torch.from_numpy(GRID)


def _tensors(arrays: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def test_worked_case() -> None:
    # Hazards of causes 1, 2: (.1, .2), (.3, .1), (.2, .2); none: .7, .6, .6.
    hazards = torch.tensor([[0.1, 0.2], [0.3, 0.1], [0.2, 0.2]]).double()
    outputs = torch.log(hazards / (1 - hazards.sum(dim=1, keepdim=True))).view(1, 6)
    head = competing_risks(2)
    own = _tensors(head.targets([8, 8, 10, 7, 40], [1, 2, 0, 0, 1], GRID))
    assert own["interval"].tolist() == [1, 1, 1, 0, 2]
    assert own["event"].tolist() == [1, 2, 0, 0, 0]
    # .7 * .3; .7 * .1; .7 * .6; .7; .7 * .6 * .6.
    expected = torch.tensor([0.21, 0.07, 0.42, 0.7, 0.252]).double()
    torch.testing.assert_close((-head.nll(outputs.expand(5, 6), own)).exp(), expected)
    # CIF_1: .1, .1 + .7*.3, .31 + .42*.2; CIF_2: .2, .2 + .7*.1, .27 + .42*.2.
    incidence = incidence_at(outputs, CUTS, CUTS, 2)
    expected = torch.tensor([[[0.1, 0.31, 0.394], [0.2, 0.27, 0.354]]]).double()
    torch.testing.assert_close(incidence, expected)


def test_one_cause_is_the_logistic_hazard() -> None:
    head, single = competing_risks(1), HEADS["logistic_hazard"]
    for seed in range(200):
        rng = np.random.default_rng(seed)
        num_patients = int(rng.integers(1, 30))
        months = rng.exponential(15, num_patients) + 0.01
        event = (rng.random(num_patients) < rng.choice([0, 0.3, 1])).astype(int)
        outputs = torch.from_numpy(rng.normal(0, 3, (num_patients, 3)))
        mine = head.nll(outputs, _tensors(head.targets(months, event, GRID)))
        peer = single.nll(outputs, _tensors(single.targets(months, event, GRID)))
        torch.testing.assert_close(mine, peer, rtol=1e-9, atol=1e-9)
        times = torch.from_numpy(months)
        survival = single.survival_at(outputs, CUTS, times)
        torch.testing.assert_close(
            incidence_at(outputs, CUTS, times, 1)[:, 0], 1 - survival, rtol=1e-9, atol=1e-9
        )


def test_likelihood_equals_a_multinomial_regression_on_person_intervals() -> None:
    for seed in range(200):
        rng = np.random.default_rng(seed)
        num_causes = int(rng.integers(1, 5))
        head = competing_risks(num_causes)
        outputs = torch.from_numpy(rng.normal(0, 2, (8, 3 * num_causes)))
        months, cause = rng.exponential(15, 8) + 0.01, rng.integers(0, num_causes + 1, 8)
        own = _tensors(head.targets(months, cause, GRID))
        found = head.nll(outputs, own)
        for i in range(8):
            scores = torch.zeros(3, num_causes + 1).double()
            scores[:, 1:] = outputs[i].view(3, num_causes)
            last = int(own["interval"][i])
            labels = torch.zeros(last + 1, dtype=torch.int64)
            if last >= 0:
                labels[-1] = own["event"][i]
            rows = torch.nn.functional.cross_entropy(scores[: last + 1], labels, reduction="sum")
            assert found[i].item() == pytest.approx(rows.item(), rel=1e-9, abs=1e-9)


def test_incidences_and_survival_add_to_one_and_never_fall() -> None:
    outputs = torch.from_numpy(np.random.default_rng(1).normal(-1, 4, (40, 9)))
    months = torch.linspace(0, 30, 200).double()
    incidence = incidence_at(outputs, CUTS, months, 3)
    assert (incidence >= 0).all() and (incidence <= 1).all()
    assert (incidence.diff(dim=2) >= -1e-14).all()
    survival = competing_risks(3).survival_at(outputs, CUTS, months)
    torch.testing.assert_close(incidence.sum(dim=1) + survival, torch.ones(40, 200).double())
    torch.testing.assert_close(incidence[:, :, 0], torch.zeros(40, 3).double())


def test_incidence_inside_an_interval_integrates_the_cause_specific_hazard() -> None:
    outputs = torch.tensor([[0.3, -1.0]]).double()
    eta = float(torch.log(1 + outputs.exp().sum()))
    share = torch.softmax(outputs, dim=1)[0].tolist()
    found = incidence_at(outputs, torch.tensor([10.0]), torch.tensor([4.0]), 2)[0, :, 0]
    for cause in range(2):
        rate = share[cause] * eta / 10
        area, _ = quad(lambda t, rate=rate: rate * np.exp(-eta * t / 10), 0, 4)
        assert found[cause].item() == pytest.approx(area, rel=1e-12)


def test_censoring_the_other_cause_would_overstate_the_risk() -> None:
    # Why this head exists: 1 - prod(1 - h_1k) exceeds CIF_1 wherever h_2 > 0.
    hazards = torch.tensor([[0.1, 0.2], [0.3, 0.1], [0.2, 0.2]]).double()
    alone = 1 - torch.prod(1 - hazards[:, 0])
    outputs = torch.log(hazards / (1 - hazards.sum(dim=1, keepdim=True))).view(1, 6)
    assert incidence_at(outputs, CUTS, CUTS[-1:], 2)[0, 0, 0] < alone


def test_extreme_outputs_have_finite_incidences() -> None:
    signs = np.random.default_rng(2).choice([-1e3, 1e3], (50, 6))
    incidence = incidence_at(torch.from_numpy(signs), CUTS, CUTS, 2)
    assert torch.isfinite(incidence).all() and (incidence <= 1 + 1e-12).all()


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="give a number from 1 to 10"):
        competing_risks(0)
    with pytest.raises(DataError, match="no whole number from 0 to 3"):
        competing_risks(3).targets(np.array([1.0]), np.array([4]), GRID)
