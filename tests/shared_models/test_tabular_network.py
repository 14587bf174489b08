import pytest
import torch
from torch.func import functional_call, grad, vmap

from protocol.errors import ConfigError
from shared_models.heads import HEADS
from shared_models.networks import build
from shared_models.objectives import prognosis_objective
from shared_models.tabular import Tabular

GENERATOR = torch.Generator().manual_seed(6)


def _network(**options: object) -> Tabular:
    model = build("tabular", {"num_tabular": 4, "num_intervals": 5, **options}, seed=1)
    assert isinstance(model, Tabular)
    torch.nn.init.normal_(model.body[-1].weight, generator=GENERATOR)
    return model.eval()


def _inputs(num_patients: int = 6) -> dict[str, torch.Tensor]:
    return {
        "tabular": torch.randn(num_patients, 4, generator=GENERATOR),
        "missing": torch.tensor([[0, 0, 1, 0]] * num_patients),
    }


def test_images_are_ignored() -> None:
    model, inputs = _network(), _inputs()
    images = {"images": torch.full((6, 3, 2, 4, 4), torch.nan), "slice_present": torch.ones(6, 2)}
    assert torch.equal(model(**images, **inputs), model(None, None, **inputs))


def test_mixed_precision_rounds_no_covariate() -> None:
    model, inputs = _network(), _inputs()
    exact = model(None, None, **inputs)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model(None, None, **inputs), exact)


@pytest.mark.parametrize("filling", [0.0, 1e6, float("nan")])
def test_a_missing_field_is_never_read(filling: float) -> None:
    model, inputs = _network(), _inputs()
    changed = dict(inputs, tabular=inputs["tabular"].clone())
    changed["tabular"][:, 2] = filling
    assert torch.equal(model(None, None, **changed), model(None, None, **inputs))


def test_no_hidden_layer_is_the_linear_model() -> None:
    model, inputs = _network(hidden=()), _inputs()
    assert sum(parameter.numel() for parameter in model.parameters()) == 8 * 5 + 5
    inputs["missing"] = torch.zeros(6, 4)
    whole = model(None, None, **inputs)
    origin = model(None, None, torch.zeros(6, 4), inputs["missing"])
    doubled = model(None, None, 2 * inputs["tabular"], inputs["missing"])
    torch.testing.assert_close(doubled - origin, 2 * (whole - origin))


def test_a_patient_does_not_see_the_batch() -> None:
    model, inputs = _network(), _inputs()
    alone = model(None, None, inputs["tabular"][2:3], inputs["missing"][2:3])
    torch.testing.assert_close(alone, model(None, None, **inputs)[2:3])


@pytest.mark.parametrize("name", sorted(HEADS))
def test_it_starts_from_the_given_patient(name: str) -> None:
    hazards, cuts = [0.1] * 5, [12.0, 24.0, 36.0, 48.0, 60.0]
    start = HEADS[name].start_outputs(hazards, cuts)
    model = build(
        "tabular", {"num_tabular": 4, "num_intervals": 5, "head": name, "start": start}
    ).eval()
    risk = HEADS[name].risk(model(None, None, **_inputs()), torch.tensor(cuts))
    torch.testing.assert_close(risk, torch.full((6,), 1 - 0.9**5), rtol=1e-5, atol=1e-5)


def test_per_patient_gradients_add_to_the_batch() -> None:
    model, inputs = _network(dropout=0.0, field_dropout=0.0), _inputs()
    model.train()
    batch = {**inputs, "interval": torch.arange(6) % 5, "event": torch.arange(6) % 2}
    weights = {name: value.detach() for name, value in model.named_parameters()}

    class Bound(torch.nn.Module):
        def __init__(self, own: dict[str, torch.Tensor]) -> None:
            super().__init__()
            self.own = own

        def forward(self, *given: object) -> torch.Tensor:
            return functional_call(model, self.own, given)

    def loss(own: dict[str, torch.Tensor], rows: dict[str, torch.Tensor]) -> torch.Tensor:
        return prognosis_objective(Bound(own), rows).mean()

    single = {name: value[:, None] for name, value in batch.items()}
    each = vmap(grad(loss), (None, 0))(weights, single)
    whole = grad(loss)(weights, batch)
    for name, value in whole.items():
        torch.testing.assert_close(each[name].mean(dim=0), value, rtol=1e-4, atol=1e-6)


def test_fields_are_dropped_while_training_only() -> None:
    model, inputs = _network(field_dropout=0.5, dropout=0.0), _inputs()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model.train()
        first, again = (model(None, None, **inputs) for _ in range(2))
    assert not torch.equal(first, again)
    model.eval()
    assert torch.equal(model(None, None, **inputs), model(None, None, **inputs))


def test_whoever_looks_for_random_numbers_finds_those_of_the_fields() -> None:
    # Threads that share a batch would race for them; a linear network has no other dropout.
    dropped = [m.p for m in _network(hidden=()).modules() if isinstance(m, torch.nn.Dropout)]
    assert dropped == [0.1]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"hidden": (0,)}, "sizes must be positive"),
        ({"dropout": 1.0}, "sizes must be positive and dropout in"),
        ({"num_intervals": 0}, "0 outputs"),
        ({"start": [0.0]}, "start has 1 values; head 'logistic_hazard' needs 5"),
        ({"start": [float("nan")] * 5}, "each finite"),
        ({"head": "cox"}, "Head 'cox' is unknown"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        build("tabular", {"num_tabular": 4, "num_intervals": 5, **options})
