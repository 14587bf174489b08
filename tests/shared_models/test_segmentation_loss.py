import pytest
import torch
from monai.losses import DiceLoss
from torch.func import functional_call, grad, vmap
from torch.nn import functional

from shared_models.losses.segmentation import IGNORE, dice_cross_entropy
from shared_models.unet import UNet

GENERATOR = torch.Generator().manual_seed(7)
LOGITS = torch.randn(3, 4, 12, 10, generator=GENERATOR)
LABELS = torch.randint(0, 4, (3, 12, 10), generator=GENERATOR)


@pytest.mark.parametrize("smooth", [1e-5, 1.0])
def test_dice_equals_the_peer(smooth: float) -> None:
    peer = DiceLoss(
        include_background=False,
        to_onehot_y=True,
        softmax=True,
        smooth_nr=smooth,
        smooth_dr=smooth,
    )
    ours = dice_cross_entropy(LOGITS, LABELS, smooth=smooth, cross_entropy_weight=0.0)
    torch.testing.assert_close(ours.mean(), peer(LOGITS, LABELS[:, None]))


def test_cross_entropy_equals_torch() -> None:
    ours = dice_cross_entropy(LOGITS, LABELS, dice_weight=0.0).mean()
    torch.testing.assert_close(ours, functional.cross_entropy(LOGITS, LABELS))
    holes = LABELS.clone()
    holes[:, :5] = IGNORE
    ours = dice_cross_entropy(LOGITS, holes, dice_weight=0.0).mean()
    peer = functional.cross_entropy(LOGITS, holes, ignore_index=IGNORE)
    torch.testing.assert_close(ours, peer)


def test_a_pixel_without_annotation_has_no_influence() -> None:
    holes = LABELS.clone()
    holes[:, :, 3:] = IGNORE
    logits = LOGITS.clone().requires_grad_()
    dice_cross_entropy(logits, holes).sum().backward()
    assert torch.count_nonzero(logits.grad[..., 3:]) == 0
    changed = LOGITS.clone()
    changed[..., 3:] = 100.0
    assert torch.equal(dice_cross_entropy(changed, holes), dice_cross_entropy(LOGITS, holes))


def test_an_image_without_annotation_costs_nothing() -> None:
    holes = LABELS.clone()
    holes[1] = IGNORE
    found = dice_cross_entropy(LOGITS, holes)
    expected = dice_cross_entropy(LOGITS, LABELS)
    assert found[1] == 0 and torch.equal(found[[0, 2]], expected[[0, 2]])


def test_an_image_does_not_see_its_batch_for_uint8_and_int64() -> None:
    each = dice_cross_entropy(LOGITS, LABELS)
    alone = [dice_cross_entropy(LOGITS[i : i + 1], LABELS[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(each, torch.cat(alone))
    torch.testing.assert_close(dice_cross_entropy(LOGITS, LABELS.to(torch.uint8)), each)


def test_perfect_logits_cost_nothing_even_where_a_class_is_absent() -> None:
    labels = torch.zeros(1, 8, 8, dtype=torch.int64)
    labels[0, 2:4, 2:4] = 1
    logits = 60.0 * functional.one_hot(labels, 4).permute(0, 3, 1, 2).float()
    assert float(dice_cross_entropy(logits, labels)) == pytest.approx(0.0, abs=1e-6)


def _plain(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Say the same as a loop over images and classes, for autograd to differentiate."""
    losses = []
    for z, y in zip(logits, labels, strict=True):
        kept = y != IGNORE
        log_p, truth = functional.log_softmax(z[:, kept], dim=0), y[kept]
        cross_entropy = functional.nll_loss(log_p.T, truth)
        dice = []
        for label in (1, 2, 3):
            p, t = log_p[label].exp(), (truth == label).float()
            dice.append((2 * (p * t).sum() + 0.7) / (p.sum() + t.sum() + 0.7))
        losses.append(0.3 * (1 - torch.stack(dice).mean()) + 2.0 * cross_entropy)
    return torch.stack(losses)


def test_value_and_gradient_equal_those_of_autograd_on_the_plain_formula() -> None:
    labels = LABELS.clone()
    labels[0, :4] = IGNORE
    labels[2][labels[2] == 3] = 0
    ours, plain = LOGITS.clone().requires_grad_(), LOGITS.clone().requires_grad_()
    pull = torch.tensor([0.2, 1.0, -3.0])
    found = dice_cross_entropy(ours, labels, smooth=0.7, dice_weight=0.3, cross_entropy_weight=2.0)
    expected = _plain(plain, labels)
    torch.testing.assert_close(found, expected)
    (found @ pull).backward()
    (expected @ pull).backward()
    torch.testing.assert_close(ours.grad, plain.grad, atol=1e-7, rtol=1e-5)


def test_gradient_by_finite_differences() -> None:
    logits = LOGITS[:1, :, :3, :3].double().requires_grad_()
    labels = LABELS[:1, :3, :3].clone()
    labels[0, 0, 0] = IGNORE
    # The loss itself is float32, so the check is loose.
    assert torch.autograd.gradcheck(
        lambda z: dice_cross_entropy(z, labels).double(), logits, eps=1e-2, atol=1e-3
    )


def test_deep_supervision_weighs_by_halves() -> None:
    coarse = LOGITS[:, :, ::2, ::2]
    fine = dice_cross_entropy(LOGITS, LABELS)
    half = dice_cross_entropy(coarse, LABELS[:, ::2, ::2])
    both = dice_cross_entropy((LOGITS, coarse), LABELS)
    torch.testing.assert_close(both, (fine + 0.5 * half) / 1.5)


def test_per_patient_gradients_by_vmap_add_up() -> None:
    model = UNet(channels=(4, 8, 8))
    weights = {name: p.detach() for name, p in model.named_parameters()}
    images = torch.rand(3, 1, 16, 16, generator=GENERATOR)
    labels = torch.randint(0, 4, (3, 16, 16), generator=GENERATOR)

    def one(values: dict[str, torch.Tensor], image: torch.Tensor, label: torch.Tensor):  # type: ignore[no-untyped-def]
        return dice_cross_entropy(functional_call(model, values, (image[None],)), label[None])[0]

    each = vmap(grad(one), (None, 0, 0))(weights, images, labels)
    dice_cross_entropy(model(images), labels).mean().backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(each[name].mean(0), parameter.grad, atol=1e-6, rtol=1e-4)
