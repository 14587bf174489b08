import pytest
import torch
from torch import nn

from protocol.errors import PayloadError
from shared_models.losses.proximal import proximal_term


def _model() -> tuple[nn.Linear, dict[str, torch.Tensor]]:
    model = nn.Linear(2, 1)
    anchor = {name: p.detach().clone() for name, p in model.named_parameters()}
    return model, anchor


def test_it_is_half_mu_times_the_squared_distance() -> None:
    model, anchor = _model()
    with torch.no_grad():
        model.weight += torch.tensor([[3.0, 0.0]])
        model.bias += 4.0
    term = proximal_term(model, anchor, 0.1)
    torch.testing.assert_close(term, torch.tensor(0.1 / 2 * 25.0))
    term.backward()
    torch.testing.assert_close(model.weight.grad, torch.tensor([[0.3, 0.0]]))
    torch.testing.assert_close(model.bias.grad, torch.tensor([0.4]))


def test_it_is_zero_at_the_anchor_and_for_mu_zero() -> None:
    model, anchor = _model()
    assert proximal_term(model, anchor, 1.0).item() == 0
    with torch.no_grad():
        model.bias += 1
    assert proximal_term(model, anchor, 0.0).item() == 0


def test_frozen_weights_are_left_out() -> None:
    model, anchor = _model()
    model.bias.requires_grad_(False)
    model.bias.add_(5)
    assert proximal_term(model, anchor, 1.0).item() == 0


def test_another_network_is_refused() -> None:
    model, anchor = _model()
    del anchor["bias"]
    with pytest.raises(
        PayloadError, match=r"no tensor 'bias' of shape .1,.; send the global model"
    ):
        proximal_term(model, anchor, 1.0)
