"""Ridge, elastic net and their federated cross-validation."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from lifelines.utils import concordance_index
from sksurv.linear_model import CoxnetSurvivalAnalysis, CoxPHSurvivalAnalysis
from sksurv.util import Surv

from client.cox import SurvivalTable, assign_folds, grid_sums, stratified_sums
from protocol.errors import ConfigError
from protocol.stats import merge_all
from strategies.cox import Ask, fit
from strategies.cox_penalty import Penalty
from strategies.cox_validation import cross_validate

WIDTH = 6
NAMES = tuple(f"x{j}" for j in range(WIDTH))
GRID = np.arange(2.0, 62.0, 2.0)


def hospitals(seed: int, size: int = 200, *, ties: bool = True) -> list[SurvivalTable]:
    """Three hospitals; standardised covariates, the last a near copy of the first."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(size, WIDTH))
    x[:, -1] = x[:, 0] + 0.1 * rng.normal(size=size)
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    onset = rng.exponential(30 * np.exp(-x[:, :3] @ [0.7, -0.5, 0.1]))
    end = rng.uniform(6, 60, size)
    months = np.minimum(onset, end)
    months = np.ceil(months / 2) * 2 if ties else months
    table = SurvivalTable.of(NAMES, months, onset <= end, x)
    site = rng.integers(0, 3, size)
    return [table.take(site == s) for s in range(3)]


def together(parts: list[SurvivalTable]) -> tuple[np.ndarray, np.ndarray]:
    x = np.concatenate([t.x for t in parts])
    y = Surv.from_arrays(
        np.concatenate([t.event for t in parts]), np.concatenate([t.months for t in parts])
    )
    return x, y


def pooled(parts: list[SurvivalTable], ties: str) -> Ask:
    grid = np.unique(np.concatenate([t.months[t.event] for t in parts]))
    return lambda beta: merge_all(
        [grid_sums(t, beta, grid, min_cell=1) for t in parts]
    ).partial_likelihood(ties)


def stratified(parts: list[SurvivalTable]) -> Ask:
    return lambda beta: merge_all([stratified_sums(t, beta, min_cell=1) for t in parts])


@pytest.mark.parametrize("ties", ["breslow", "efron"])
@pytest.mark.parametrize("strength", [0.001, 0.1, 3.0])
def test_ridge_equals_scikit_survival(ties: str, strength: float) -> None:
    parts = hospitals(1)
    x, y = together(parts)
    # There the penalty is not multiplied by the number of patients.
    reference = CoxPHSurvivalAnalysis(
        alpha=strength * len(x), ties=ties, tol=1e-15, n_iter=200
    ).fit(x, y)
    found = fit(pooled(parts, ties), WIDTH, penalty=Penalty(strength))
    np.testing.assert_allclose(found.beta, reference.coef_, rtol=0, atol=1e-7)


@pytest.mark.parametrize("l1_ratio", [0.3, 1.0])
@pytest.mark.parametrize("strength", [0.01, 0.05, 0.15])
def test_elastic_net_equals_coxnet(strength: float, l1_ratio: float) -> None:
    parts = hospitals(2, ties=False)
    x, y = together(parts)
    reference = CoxnetSurvivalAnalysis(
        l1_ratio=l1_ratio, alphas=[strength], tol=1e-14, max_iter=10**6
    ).fit(x, y)
    ask = pooled(parts, "breslow")
    found = fit(ask, WIDTH, penalty=Penalty(strength, l1_ratio))
    np.testing.assert_allclose(found.beta, reference.coef_[:, 0], rtol=0, atol=2e-5)
    _assert_optimal(ask, found.beta, Penalty(strength, l1_ratio))


def _assert_optimal(ask: Ask, beta: np.ndarray, penalty: Penalty) -> None:
    """Karush-Kuhn-Tucker: the gradient balances the penalty, or hides below its kink."""
    sums = ask(beta)
    pull = sums.gradient / sums.num_patients - penalty.ridge * beta
    zero = beta == 0
    assert (np.abs(pull[zero]) <= penalty.lasso + 1e-9).all()
    np.testing.assert_allclose(pull[~zero], penalty.lasso * np.sign(beta[~zero]), atol=1e-9)


@pytest.mark.parametrize("l1_ratio", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("seed", range(5))
def test_stratified_penalised_fits_are_optimal(seed: int, l1_ratio: float) -> None:
    ask, penalty = stratified(hospitals(seed)), Penalty(0.03, l1_ratio)
    found = fit(ask, WIDTH, penalty=penalty)
    _assert_optimal(ask, found.beta, penalty)
    assert found.objective >= found.null.log_likelihood  # type: ignore[union-attr]
    assert found.rounds <= 10


def test_a_strong_lasso_leaves_nothing_and_a_weak_ridge_the_plain_fit() -> None:
    ask = stratified(hospitals(3))
    strong = fit(ask, WIDTH, penalty=Penalty(10.0, 1.0))
    assert not strong.beta.any()
    assert strong.rounds == 1
    plain, weak = fit(ask, WIDTH), fit(ask, WIDTH, penalty=Penalty(1e-12))
    np.testing.assert_allclose(weak.beta, plain.beta, atol=1e-7)


@pytest.mark.parametrize("penalty", [Penalty(0.01), Penalty(0.01, 0.5), Penalty(0.01, 1.0)])
def test_a_penalty_answers_where_a_plain_fit_cannot(penalty: Penalty) -> None:
    parts = [
        SurvivalTable.of(
            NAMES, t.months, t.event, np.column_stack([t.x[:, :4], t.x[:, 0], t.event])
        )
        for t in hospitals(4)
    ]
    found = fit(stratified(parts), WIDTH, penalty=penalty)
    assert np.isfinite(found.beta).all()
    if penalty.l1_ratio < 1:
        assert found.beta[0] == pytest.approx(found.beta[4], abs=1e-7)


def test_cross_validation_is_verweij_and_van_houwelingens() -> None:
    parts = hospitals(5, 150)
    rng = np.random.default_rng(1)
    folds = [assign_folds(t, 3, rng, min_cell=1) for t in parts]

    def ask_fold(fold: int | None) -> Ask:
        kept = parts
        if fold is not None:
            kept = [t.take(f != fold) for t, f in zip(parts, folds, strict=True)]
        return lambda b: merge_all(
            [grid_sums(t, b, GRID, min_cell=1) for t in kept]
        ).partial_likelihood("efron")

    penalties = [Penalty(strength) for strength in (30.0, 0.3, 0.03, 0.0)]
    found = cross_validate(ask_fold, WIDTH, penalties, 3)
    # The definition, by a reference that holds all patients: l(b_-f) - l_-f(b_-f).
    x, y = together(parts)
    fold = np.concatenate(folds)
    inside = fold != 1
    reference = CoxPHSurvivalAnalysis(
        alpha=0.3 * inside.sum(), ties="efron", tol=1e-15, n_iter=200
    ).fit(x[inside], y[inside])
    everyone, outside = pooled(parts, "efron"), ask_fold(1)
    expected = everyone(reference.coef_).log_likelihood - outside(reference.coef_).log_likelihood
    assert found.score[1, 1] == pytest.approx(expected, abs=1e-6)
    assert found.score.shape == (4, 3)
    # A penalty that leaves nothing is worse than a mild one.
    assert found.total[0] < found.total[2]
    assert found.best == penalties[int(np.argmax(found.score.sum(axis=1)))]


def test_folds_of_whole_hospitals_stratified() -> None:
    parts = hospitals(6, 300)

    def ask_fold(fold: int | None) -> Ask:
        return stratified([t for f, t in enumerate(parts) if f != fold])

    found = cross_validate(ask_fold, WIDTH, [Penalty(0.1), Penalty(0.01)], 3)
    beta = fit(ask_fold(2), WIDTH, penalty=Penalty(0.01)).beta
    # With one baseline a hospital, what is left out is judged by its own partial likelihood.
    own = stratified_sums(parts[2], beta, min_cell=1).log_likelihood
    assert found.score[1, 2] == pytest.approx(own, abs=1e-7)


def test_tcga_brca(shared_data: Path) -> None:
    """FLamby's split: the penalty is chosen on training regions alone, the test judged once."""
    folder = shared_data / "survival" / "tcga_brca_6regions"
    rows = pd.read_csv(folder / "brca.csv").merge(
        pd.read_csv(folder / "train_test_split.csv"), on="pid"
    )
    names = tuple(rows.columns[1:40])
    training, test = rows[rows["fold"] == "train"], rows[rows["fold"] == "test"]
    mean, deviation = training[list(names)].mean(), training[list(names)].std(ddof=0)
    # Without a day of follow-up nobody is at risk at any event.
    parts = [
        SurvivalTable.of(names, part["T"], part["E"], (part[list(names)] - mean) / deviation)
        for _, part in training[training["T"] > 0].groupby("fold2")
    ]
    choice = cross_validate(
        lambda fold: stratified([t for region, t in enumerate(parts) if region != fold]),
        len(names),
        [Penalty(strength) for strength in (0.3, 0.1, 0.03, 0.01)],
        len(parts),
    ).best
    beta = fit(stratified(parts), len(names), penalty=choice).beta
    score = ((test[list(names)] - mean) / deviation).to_numpy() @ beta
    assert concordance_index(test["T"], -score, test["E"]) >= 0.845


@pytest.mark.parametrize(
    ("strength", "l1_ratio", "sentence"),
    [
        (-0.1, 0.0, "strength is -0.1, expected a finite number of at least 0"),
        (float("nan"), 0.0, "strength is nan"),
        (0.1, 1.1, r"l1_ratio is 1.1, expected 0 \(ridge\) to 1 \(lasso\)"),
    ],
)
def test_impossible_penalties(strength: float, l1_ratio: float, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        Penalty(strength, l1_ratio)


def test_impossible_cross_validations() -> None:
    ask = stratified(hospitals(7))
    with pytest.raises(ConfigError, match="of 0 penalties in 3 folds"):
        cross_validate(lambda fold: ask, WIDTH, [], 3)
    with pytest.raises(ConfigError, match="of 1 penalties in 1 folds"):
        cross_validate(lambda fold: ask, WIDTH, [Penalty()], 1)
