"""Per-patient gradients of a whole batch in one pass, layer by layer.

Differentiating one patient after the other costs twice a plain step on a CPU: small convolutions
are slow. But between "the patients together" and "each patient alone" only the gradients of the
weights differ; the maps, and the gradients of the maps, are the same. So here the network runs once
over all patients, and where a layer learns the gradient of its output, its rule takes the gradient
of its weights apart by patients.

That holds for layers that treat rows alone, and a rule can be wrong. So none is believed:
`privacy.gradients` compares the outcome with one patient at a time, on the network and patients at
hand, before it uses any of this, and goes the slow way where they differ.

Letters: P patients, R = P k rows (the k rows of a patient stand together), C channels.
"""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

__all__ = ["RULES", "LayerRule", "Layers", "convolution", "group_norm", "linear", "normalised"]

LayerRule = Callable[[Any, Tensor, Any, Tensor, int], dict[str, Tensor]]
"""``(layer, x, node, g, P)`` returns the gradients, (P, ...), by the layer's names of parameters.

``x`` is the input of a call, (R, ...); ``node`` is what autograd kept of it, or None; ``g`` is the
gradient of the sum of the patients' losses with respect to the output, (R, ...).
"""

# From here on the product of two maps is cheaper than a matrix product of whose result only the
# diagonal is wanted.
MANY_CHANNELS = 64


def convolution(
    layer: Any, x: Tensor, node: Any, g: Tensor, num_patients: int
) -> dict[str, Tensor]:
    """Rule of convolutions, transposed or not, that are padded with zeros."""
    transposed = isinstance(layer, nn.modules.conv._ConvTransposeNd)
    padding = list(layer.padding)
    output_padding = list(layer.output_padding) if transposed else [0] * len(padding)
    sizes = (list(layer.stride), padding, list(layer.dilation), transposed, output_padding)
    parts = zip(g.tensor_split(num_patients), x.tensor_split(num_patients), strict=True)
    # A call for each patient: as one convolution of P groups it is far slower.
    weight = [
        torch.ops.aten.convolution_backward(
            part, rows, layer.weight, None, *sizes, layer.groups, (False, True, False)
        )[1]
        for part, rows in parts
    ]
    grads = {"weight": torch.stack(weight)}
    if layer.bias is not None:
        grads["bias"] = _by_patient(g.flatten(2).sum(dim=2), num_patients).sum(dim=1)
    return grads


def linear(layer: Any, x: Tensor, node: Any, g: Tensor, num_patients: int) -> dict[str, Tensor]:
    """Rule of ``nn.Linear``."""
    rows, part = (_by_patient(t, num_patients).flatten(1, -2) for t in (x, g))
    grads = {"weight": torch.bmm(part.transpose(1, 2), rows)}
    if layer.bias is not None:
        grads["bias"] = part.sum(dim=1)
    return grads


def group_norm(layer: Any, x: Tensor, node: Any, g: Tensor, num_patients: int) -> dict[str, Tensor]:
    """Rule of ``nn.GroupNorm``."""
    if node is not None and node.name() == "NativeGroupNormBackward0":
        mean, rstd = node._saved_result1, node._saved_result2
    else:
        shape = (*x.shape[:2], x[0, 0].numel(), layer.num_groups)
        _, mean, rstd = torch.native_group_norm(x, None, None, *shape, layer.eps)
    return normalised(x, mean, rstd, g, num_patients)


def normalised(
    x: Tensor, mean: Tensor, rstd: Tensor, g: Tensor, num_patients: int
) -> dict[str, Tensor]:
    """Return the gradients of a norm's ``weight`` and ``bias``.

    Parameters
    ----------
    x, g : Tensor
        (R, C, ...) input, and gradient of the output.
    mean, rstd : Tensor
        (R, G) of each group of C / G channels; G divides C. The weight's gradient is
        ``sum (x - mean) rstd g = rstd (sum x g - mean sum g)``.
    """
    num_rows, num_channels = x.shape[:2]
    # (R, pixels, C): a view where channels come last.
    pixels, part = ((t.flatten(2) if t.ndim > 2 else t[:, :, None]).transpose(1, 2) for t in (x, g))
    summed = part.sum(dim=1)
    if num_channels < MANY_CHANNELS:
        # Reads each map once and writes none.
        product = torch.bmm(pixels.transpose(1, 2), part).diagonal(dim1=1, dim2=2)
    else:
        product = (pixels * part).sum(dim=1)
    mean, rstd = (
        t.reshape(num_rows, -1).repeat_interleave(num_channels * num_rows // t.numel(), dim=1)
        for t in (mean, rstd)
    )
    weight = (product - mean * summed) * rstd
    return {
        "weight": _by_patient(weight, num_patients).sum(dim=1),
        "bias": _by_patient(summed, num_patients).sum(dim=1),
    }


RULES: Mapping[type[nn.Module], LayerRule] = {
    nn.Conv2d: convolution,
    nn.Conv3d: convolution,
    nn.ConvTranspose2d: convolution,
    nn.ConvTranspose3d: convolution,
    nn.GroupNorm: group_norm,
    nn.Linear: linear,
}
"""Rules by the very class of a layer; a subclass may compute something else."""


class Layers:
    """A module whose layers take the gradients of their weights apart by patients.

    Parameters
    ----------
    module : nn.Module
        Called with the records of P patients, returns their losses, (P,). It is this object's own:
        hooks are added to it, and its parameters no longer ask for gradients.
    rules : mapping
        As `RULES`. A layer without a rule, and without layers inside, is run again for each
        patient; of any other module's own vectors each patient gets a copy, as is right where
        vectors are added to rows.
    """

    def __init__(self, module: nn.Module, rules: Mapping[type[nn.Module], LayerRule]) -> None:
        self.module = module
        self.names = [name for name, p in module.named_parameters() if p.requires_grad]
        self.vectors: dict[str, Tensor] = {}
        self.grads: dict[str, Tensor] = {}
        self.num_patients = 0
        # Every output depends on it, so every output has a gradient, the first layer's as well.
        self.anchor = torch.zeros((), requires_grad=True)
        for place, layer in module.named_modules():
            prefix = f"{place}." if place else ""
            own = [
                (prefix + name, p)
                for name, p in layer.named_parameters(recurse=False)
                if p.requires_grad
            ]
            if not own:
                continue
            if type(layer) in rules or not any(True for _ in layer.children()):
                rule = rules.get(type(layer), _again)
                layer.register_forward_hook(self._hook(prefix, _twin(layer), rule))
            else:
                self.vectors |= own
        for parameter in module.parameters():
            parameter.requires_grad_(False)

    def _hook(self, prefix: str, twin: nn.Module, rule: LayerRule) -> Callable[..., Any]:
        def hook(layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Any:
            (x,) = inputs
            x, version, node = x.detach(), x._version, output.grad_fn

            def collect(g: Tensor) -> None:
                if x._version != version:
                    raise RuntimeError("the input of a layer was changed in place")
                for name, grad in rule(twin, x, node, g, self.num_patients).items():
                    before = self.grads.get(prefix + name)
                    self.grads[prefix + name] = grad if before is None else before + grad

            return _Tap.apply(output, self.anchor, collect)

        return hook

    def gradients(
        self, patients: dict[str, Tensor], num_patients: int
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Return each parameter's gradient for each patient, (P, ...), and the losses, (P,).

        Raises
        ------
        RuntimeError
            If the module is not one that this can be done for.
        """
        self.grads, self.num_patients = {}, num_patients
        copies = {
            name: p.detach().expand(num_patients, *p.shape).clone().requires_grad_()
            for name, p in self.vectors.items()
        }
        losses = functional_call(self.module, copies, (patients,))
        wanted = [self.anchor, *copies.values()]
        _, *rest = torch.autograd.grad(losses.sum(), wanted, allow_unused=True)
        found = self.grads | dict(zip(copies, rest, strict=True))
        self.grads = {}
        for name in self.names:
            if found.get(name) is None:
                p = self.module.get_parameter(name)
                found[name] = p.new_zeros((num_patients, *p.shape))
        return {name: found[name] for name in self.names}, losses.detach()


class _Tap(torch.autograd.Function):
    """Hands an output on, and its gradient to a function.

    In place, so that nothing is copied and the network may go on to change the output in place.
    """

    @staticmethod
    def forward(ctx: Any, output: Tensor, anchor: Tensor, collect: Callable[[Tensor], None]) -> Any:
        ctx.collect = collect
        ctx.mark_dirty(output)
        return output

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:
        ctx.collect(g)
        return g, None, None


def _twin(layer: nn.Module) -> nn.Module:
    """Return a layer without hooks that shares the weights."""
    twin = copy.deepcopy(layer)
    for own, shared in zip(twin.parameters(), layer.parameters(), strict=True):
        own.data = shared.data
    return twin


def _again(layer: Any, x: Tensor, node: Any, g: Tensor, num_patients: int) -> dict[str, Tensor]:
    """Rule of any layer: run it again for each patient and differentiate that."""
    own = {name: p for name, p in layer.named_parameters(recurse=False) if p.requires_grad}
    found = []
    with torch.enable_grad():
        for rows, part in zip(
            x.tensor_split(num_patients), g.tensor_split(num_patients), strict=True
        ):
            found.append(torch.autograd.grad(layer(rows), list(own.values()), part))
    return {
        name: torch.stack(each) for name, each in zip(own, zip(*found, strict=True), strict=True)
    }


def _by_patient(rows: Tensor, num_patients: int) -> Tensor:
    return rows.unflatten(0, (num_patients, -1))
