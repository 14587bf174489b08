import pytest
import torch

from shared_models.networks import build
from shared_models.objectives import prognosis_objective
from shared_models.prognosis import Prognosis, masked_mean

GENERATOR = torch.Generator().manual_seed(11)


def _network(**options: object) -> Prognosis:
    model = build("prognosis", {"num_tabular": 4, "num_intervals": 5, **options}, seed=1)
    assert isinstance(model, Prognosis)
    # Its last layer starts at zero; give it something to show.
    torch.nn.init.normal_(model.fusion[-1].weight, generator=GENERATOR)
    torch.nn.init.normal_(model.linear.weight, generator=GENERATOR)
    return model.eval()


def _inputs(num_patients: int = 3) -> dict[str, torch.Tensor]:
    return {
        "images": torch.rand(num_patients, 3, 6, 32, 32, generator=GENERATOR),
        "slice_present": torch.tensor([[1, 1, 1, 0, 1, 0]] * num_patients).bool(),
        "tabular": torch.randn(num_patients, 4, generator=GENERATOR),
        "missing": torch.tensor([[0, 0, 1, 0]] * num_patients),
    }


def test_the_order_of_slices_is_irrelevant() -> None:
    model, inputs = _network(), _inputs()
    order = torch.tensor([4, 0, 3, 5, 2, 1])
    mixed = dict(
        inputs,
        images=inputs["images"][:, :, order],
        slice_present=inputs["slice_present"][:, order],
    )
    torch.testing.assert_close(model(**mixed), model(**inputs))


@pytest.mark.parametrize("filling", [0.0, 1e6, float("nan")])
def test_an_absent_slice_and_a_missing_field_are_never_read(filling: float) -> None:
    model, inputs = _network(), _inputs()
    changed = {name: tensor.clone() for name, tensor in inputs.items()}
    changed["images"][:, :, [3, 5]] = filling
    changed["tabular"][:, 2] = filling
    assert torch.equal(model(**changed), model(**inputs))


def test_a_present_slice_is_read() -> None:
    model, inputs = _network(), _inputs()
    changed = dict(inputs, images=inputs["images"].clone())
    changed["images"][:, :, 0] = 0
    assert not torch.allclose(model(**changed), model(**inputs))


def test_a_patient_without_images_gets_the_learned_embedding() -> None:
    model, inputs = _network(), _inputs()
    inputs["slice_present"][1] = False
    logits = model(**inputs)
    assert torch.isfinite(logits).all()
    embedded = model.embed_images(inputs["images"], inputs["slice_present"])
    assert torch.equal(embedded[1], model.absent)


def test_masked_mean_is_the_mean_of_what_is_there() -> None:
    values = torch.tensor([[[1.0], [5.0], [9.0]], [[1.0], [5.0], [9.0]]])
    present = torch.tensor([[True, False, True], [False, False, False]])
    assert masked_mean(values, present).tolist() == [[5.0], [0.0]]


def test_proportional_risks_shift_all_intervals_alike() -> None:
    inputs = _inputs()
    logits = _network()(**inputs)
    shifts = logits[1:] - logits[:1]
    torch.testing.assert_close(shifts, shifts[:, :1].expand_as(shifts))
    free = _network(proportional=False)(**inputs)
    spread = free[1:] - free[:1]
    assert not torch.allclose(spread, spread[:, :1].expand_as(spread))


def test_a_fresh_network_predicts_the_baseline_for_everyone() -> None:
    hazards = [0.01, 0.02, 0.03, 0.04, 0.05]
    model = build(
        "prognosis", {"num_tabular": 4, "num_intervals": 5, "baseline_hazard": hazards}
    ).eval()
    torch.testing.assert_close(
        torch.sigmoid(model(**_inputs())), torch.tensor([hazards] * 3), rtol=1e-5, atol=1e-6
    )


def test_without_channels_images_are_ignored() -> None:
    model, inputs = _network(channels=(), hidden=0), _inputs()
    assert torch.equal(model(**dict(inputs, images=inputs["images"] + 1)), model(**inputs))


def test_mixed_precision_rounds_images_and_no_covariate() -> None:
    model, inputs = _network(), _inputs()
    exact = model(**inputs)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = model(**inputs)
    assert mixed.dtype == torch.float32 and not torch.equal(mixed, exact)
    torch.testing.assert_close(mixed, exact, atol=0.02, rtol=0.02)
    inputs["slice_present"][:] = False
    without = model(**inputs)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model(**inputs), without)


def test_a_patient_does_not_see_the_batch() -> None:
    model, inputs = _network(), _inputs()
    alone = model(**{name: tensor[1:2] for name, tensor in inputs.items()})
    torch.testing.assert_close(alone, model(**inputs)[1:2])


def test_the_objective_reaches_every_weight() -> None:
    model, inputs = _network(), _inputs()
    inputs["slice_present"][2] = False
    batch = {**inputs, "interval": torch.tensor([0, 4, 2]), "event": torch.tensor([1.0, 0, 1])}
    prognosis_objective(model, batch).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
