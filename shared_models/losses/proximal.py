"""FedProx's proximal term."""

from collections.abc import Mapping

from torch import Tensor, nn

from protocol.errors import PayloadError

__all__ = ["proximal_term"]


def proximal_term(model: nn.Module, anchor: Mapping[str, Tensor], mu: float) -> Tensor:
    """Return ``mu/2 ||w - w_global||^2`` over the trainable parameters.

    Parameters
    ----------
    model : nn.Module
        Holds w.
    anchor : mapping of str to Tensor
        w_global by parameter name; further names are left alone.
    mu : float
        Weight, >= 0; larger keeps a hospital closer to the global model.

    Returns
    -------
    Tensor
        Scalar, differentiable in w.

    Raises
    ------
    PayloadError
        If the anchor lacks a parameter of the model or has another shape for it.

    References
    ----------
    Li et al., Federated optimization in heterogeneous networks, MLSys 2020, equation 2.
    """
    terms = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if name not in anchor or anchor[name].shape != parameter.shape:
            raise PayloadError(
                f"The proximal anchor has no tensor '{name}' of shape {tuple(parameter.shape)}; "
                "send the global model of the same network."
            )
        terms.append((parameter - anchor[name]).square().sum())
    return mu / 2 * sum(terms[1:], start=terms[0])
