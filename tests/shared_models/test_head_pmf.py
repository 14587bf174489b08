import numpy as np
import torch
from pycox.models import MTLR as PeerMTLR
from pycox.models import PMF as PeerPMF
from pycox.models.loss import nll_mtlr, nll_pmf
from pycox.preprocessing.label_transforms import LabTransDiscreteTime

from shared_models.heads.logistic_hazard import interval_targets
from shared_models.heads.pmf import MTLR, PMF, masses, mtlr_scores

GRID = np.array([6.0, 12.0, 24.0])
CUTS = torch.from_numpy(GRID)


def _tensors(arrays: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def test_pmf_of_a_worked_case() -> None:
    # Masses .1 .2 .3 and .4 for nobody: scores ln(.25) ln(.5) ln(.75) and 0.
    scores = torch.log(torch.tensor([[0.25, 0.5, 0.75]]).double()).expand(4, 3)
    torch.testing.assert_close(masses(scores)[0], torch.tensor([0.1, 0.2, 0.3, 0.4]).double())
    # Event in the second interval: .2; censored late in it: .3 + .4; at once: 1; beyond: .4.
    found = PMF.nll(scores, _tensors(interval_targets([8, 10, 1, 40], [1, 0, 0, 1], GRID)))
    torch.testing.assert_close(found, -torch.log(torch.tensor([0.2, 0.7, 1.0, 0.4]).double()))
    # Half of .2 is gone half through the second interval.
    curve = PMF.survival_at(scores[:1], CUTS, torch.tensor([0.0, 6.0, 9.0, 24.0, 99.0]))
    torch.testing.assert_close(curve[0], torch.tensor([1.0, 0.9, 0.8, 0.4, 0.4]).double())
    # S is .7 at 12 and .4 at 24: .5 two thirds through. Area: 6*.95 + 6*.8 + 12*.55.
    torch.testing.assert_close(PMF.median_months(scores[:1], CUTS)[0].item(), 20.0)
    torch.testing.assert_close(PMF.restricted_mean_months(scores[:1], CUTS)[0].item(), 17.1)


def test_mtlr_of_a_worked_case() -> None:
    # Outputs ln 2, ln 3, ln 4: scores ln 24, ln 12, ln 4 and 0; masses 24 12 4 1 of 41.
    outputs = torch.log(torch.tensor([[2.0, 3.0, 4.0]]).double()).expand(2, 3)
    expected = torch.log(torch.tensor([[24.0, 12.0, 4.0]]).double())
    torch.testing.assert_close(mtlr_scores(outputs)[:1], expected)
    found = MTLR.nll(outputs, _tensors(interval_targets([9, 9], [1, 0], GRID)))
    torch.testing.assert_close(found, -torch.log(torch.tensor([12 / 41, 5 / 41]).double()))
    curve = MTLR.survival_curve(outputs[:1], CUTS)
    torch.testing.assert_close(curve[0], torch.tensor([17 / 41, 5 / 41, 1 / 41]).double())


def test_likelihoods_equal_pycox_on_200_data_sets() -> None:
    for seed in range(200):
        rng = np.random.default_rng(seed)
        num_patients, num_intervals = int(rng.integers(1, 40)), int(rng.integers(1, 15))
        outputs = torch.from_numpy(rng.normal(0, 2, (num_patients, num_intervals)))
        interval = torch.from_numpy(rng.integers(0, num_intervals, num_patients))
        event = torch.from_numpy(
            (rng.random(num_patients) < rng.choice([0, 0.3, 1])).astype(np.float64)
        )
        own = {"interval": interval, "event": event}
        for head, peer in ((PMF, nll_pmf), (MTLR, nll_mtlr)):
            # Its guard against ln 0 is a bias of 1e-7; without it the formulas must agree.
            expected = peer(outputs, interval, event, "none", epsilon=0.0)
            torch.testing.assert_close(head.nll(outputs, own), expected, rtol=1e-9, atol=1e-9)


def test_targets_equal_pycox_but_for_the_second_half_of_an_interval() -> None:
    # pycox numbers the cuts from 0 months on and counts a censored patient up to the cut before.
    for seed in range(200):
        rng = np.random.default_rng(seed)
        cuts = np.cumsum(rng.integers(1, 9, rng.integers(1, 12))).astype(np.float64)
        months = np.ceil(rng.uniform(0, cuts[-1], 30) * 8) / 8
        event = rng.integers(0, 2, 30)
        index, happened = LabTransDiscreteTime(np.concatenate(([0.0], cuts))).transform(
            months, event.astype(np.float64)
        )
        found = interval_targets(months, event, cuts)
        starts = np.concatenate(([0.0], cuts[:-1]))
        holding = np.searchsorted(cuts, months)
        inside = months < cuts[holding]
        late = (event == 0) & inside & (months >= (starts + cuts)[holding] / 2)
        assert np.array_equal(found["interval"], index - 1 + late)
        assert np.array_equal(found["event"], happened)


def test_survival_equals_pycox_between_the_cuts() -> None:
    outputs = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    for head, peer_class in ((PMF, PeerPMF), (MTLR, PeerMTLR)):
        # pycox gives the cut at 0 months an event probability of its own; none is put there.
        padded = torch.cat((torch.full((5, 1), -60.0), outputs), dim=1)
        if head is MTLR:
            padded[:, 0] -= mtlr_scores(outputs)[:, 0]
        net = torch.nn.Linear(5, 5, bias=False)
        torch.nn.init.eye_(net.weight)
        peer = peer_class(net, duration_index=np.array([0.0, 6.0, 12.0, 24.0, 30.0]))
        frame = peer.interpolate(4).predict_surv_df(padded)
        curve = head.survival_at(
            outputs,
            torch.tensor([6.0, 12.0, 24.0, 30.0]),
            torch.from_numpy(frame.index.to_numpy(dtype=np.float64)),
        )
        np.testing.assert_allclose(curve.numpy(), frame.to_numpy().T, atol=1e-6)


def test_a_likely_interval_makes_its_neighbours_likely_in_mtlr_only() -> None:
    outputs = torch.tensor([[0.0, 3.0, 0.0]]).double()
    assert masses(mtlr_scores(outputs))[0, 0] == masses(mtlr_scores(outputs))[0, 1]
    assert masses(outputs)[0, 0] < masses(outputs)[0, 1]
