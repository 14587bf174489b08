"""The hospital's control variate: corrected steps, and the file that is taken up again."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from client.control import open_control
from client.training import TrainSummary, train
from protocol.arrays import Arrays
from protocol.config import Study
from protocol.errors import DataError, PayloadError
from protocol.payload import TrainRequest
from protocol.training_config import LocalTraining
from shared_models.execution import Execution
from shared_models.weights import to_arrays

STUDY = Study.model_validate({"name": "s", "seed": 1, "hospitals": {"train": ["A"]}})
X = {"w": np.float32([[1.0, 2.0]]), "b": np.float32([0.5])}


@pytest.fixture
def hospital(tmp_path: Path) -> Any:
    """Only where it lies and its name are needed of a hospital."""

    def workspace(study: Study) -> Path:
        return tmp_path / study.name

    return SimpleNamespace(name="A", workspace=workspace)


def asked(round_index: int, control_round: int = 0, shift: float = 0.0) -> TrainRequest:
    control = {name: np.full_like(array, shift) for name, array in X.items()}
    return TrainRequest(STUDY, "segment", round_index, {}, X, control, control_round)


def play(hospital: Any, request: TrainRequest, moved: float) -> Arrays:
    control = open_control(hospital, request)
    assert control is not None
    control.settle({name: array - np.float32(moved) for name, array in X.items()}, 0.5)
    return control.own


def test_a_round_asked_again_starts_from_what_it_started_from(hospital: Any) -> None:
    assert not play(hospital, asked(1), 1.0)["w"].any()
    for _ in range(3):
        # c_1 = 0 + (1 / .5 - 0); whatever an earlier attempt at round 2 left is not taken up.
        assert (play(hospital, asked(2, 1, 0.25), 3.0)["w"] == 2.0).all()
    # c_2 = 2 + (3 / .5 - .25).
    assert (play(hospital, asked(3, 2), 0.0)["w"] == 7.75).all()
    # The reply of round 3 was lost, and round 4 goes on from round 2.
    assert (play(hospital, asked(4, 2), 0.0)["w"] == 7.75).all()


def test_the_centre_may_go_back_by_one_checkpoint(hospital: Any) -> None:
    play(hospital, asked(1), 1.0)
    for number in (2, 3, 4, 5):
        play(hospital, asked(number, number - 1), 1.0)
    found = hospital.workspace(STUDY) / "control" / "segment"
    names = sorted(file.name for file in found.iterdir())
    assert names == [f"round-0000{k}.safetensors" for k in (3, 4, 5)]
    assert (play(hospital, asked(4, 3), 1.0)["w"] == 6.0).all()
    # A study that starts anew starts from zero and leaves nothing of the old one.
    assert not play(hospital, asked(1), 1.0)["w"].any()
    assert [file.name for file in found.iterdir()] == ["round-00001.safetensors"]


def test_stages_and_studies_have_each_their_own(hospital: Any) -> None:
    play(hospital, asked(1), 1.0)
    for other in (
        replace(asked(2, 1), stage="prognosis"),
        replace(asked(2, 1), study=STUDY.model_copy(update={"name": "t"})),
    ):
        with pytest.raises(DataError, match="A has no intact control variate of round 1 of"):
            open_control(hospital, other)


def test_a_damaged_file_is_refused(hospital: Any) -> None:
    play(hospital, asked(1), 1.0)
    [file] = (hospital.workspace(STUDY) / "control" / "segment").iterdir()
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(DataError, match=r"restore \.concors from a backup, or start the study"):
        open_control(hospital, asked(2, 1))


@pytest.mark.parametrize(
    ("control", "sentence"),
    [
        ({"w": X["w"]}, "array 'b' is missing"),
        ({**X, "more": X["b"]}, "array 'more' is not part of the model"),
        ({**X, "w": X["w"][:, :1]}, r"has shape \(1, 1\)"),
        ({**X, "b": X["b"].astype(float)}, "is float64"),
        ({**X, "b": np.float32([np.nan])}, "holds a NaN"),
    ],
)
def test_a_variate_of_another_model_is_refused(
    hospital: Any, control: Arrays, sentence: str
) -> None:
    with pytest.raises(PayloadError, match=f"^The centre's control variate: .*{sentence}"):
        open_control(hospital, replace(asked(1), control=control))


def test_other_strategies_have_none(hospital: Any) -> None:
    assert open_control(hospital, replace(asked(1), control=None)) is None
    assert not hospital.workspace(STUDY).exists()


def _fit(correction: dict[str, torch.Tensor] | None, **options: Any) -> tuple[Any, TrainSummary]:
    model = nn.Linear(2, 1)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.5, -1.0]]))
        model.bias.fill_(0.25)
    settings = {"optimizer": "sgd", "weight_decay": 0.0, "batch_size": 4, **options}
    summary = train(
        model,
        {"x": torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [2.0, 1.0]])},
        lambda m, batch: m(batch["x"]).square().flatten(),
        LocalTraining(**settings),
        learning_rate=0.125,
        rng=np.random.default_rng(0),
        execution=Execution(threads=1),
        correction=correction,
    )
    return to_arrays(model), summary


def test_sgd_is_gradient_descent_with_the_correction() -> None:
    # Outputs .75, -.75, -.25, .25: the mean gradient of w is (.5, -.375), of b 0.
    plain, summary = _fit(None)
    assert plain["weight"].tolist() == [[0.5 - 0.125 * 0.5, -1.0 + 0.125 * 0.375]]
    assert plain["bias"].tolist() == [0.25]
    assert (summary.num_steps, summary.rate_sum) == (1, 0.125)
    shift = {"weight": torch.tensor([[1.0, 2.0]]), "bias": torch.tensor([-0.5])}
    corrected, _ = _fit(shift)
    np.testing.assert_array_equal(corrected["weight"], plain["weight"] - [[0.125, 0.25]])
    assert corrected["bias"].tolist() == [0.3125]


def test_sgd_decays_weights_and_not_vectors_and_clips_what_is_corrected() -> None:
    decayed, _ = _fit(None, weight_decay=0.5)
    np.testing.assert_allclose(decayed["weight"], [[0.40625, -0.890625]])
    assert decayed["bias"].tolist() == [0.25]
    shift = {"weight": torch.tensor([[-0.5, 0.375 + 3.0]]), "bias": torch.tensor([4.0])}
    clipped, _ = _fit(shift, grad_clip_norm=1.0)
    np.testing.assert_allclose(clipped["weight"], [[0.5, -1.0 - 0.125 * 0.6]], rtol=1e-6)
    np.testing.assert_allclose(clipped["bias"], [0.25 - 0.125 * 0.8], rtol=1e-6)


def test_a_correction_of_zero_is_no_correction_to_the_bit() -> None:
    zero = {"weight": torch.zeros(1, 2), "bias": torch.zeros(1)}
    options = {"epochs": 5, "batch_size": 2, "warmup_fraction": 0.3, "final_fraction": 0.1}
    with_zero, summary = _fit(zero, **options)
    without, _ = _fit(None, **options)
    assert all(with_zero[name].tobytes() == without[name].tobytes() for name in without)
    # K eta is the sum of a schedule's rates: 4 to 1 by warm-up, then a cosine.
    assert 0.0125 * 10 < summary.rate_sum < 0.125 * 10
