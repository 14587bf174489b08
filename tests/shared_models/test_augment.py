from dataclasses import replace

import pytest
import torch

from shared_models.augment import (
    PROGNOSIS_RANGES,
    SEGMENTATION_RANGES,
    Ranges,
    augment_prognosis,
    augment_segmentation,
    draw,
    warp,
)


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _batch() -> dict[str, torch.Tensor]:
    labels = torch.randint(0, 4, (4, 8, 8), generator=_generator(5))
    labels = labels.repeat_interleave(4, 1).repeat_interleave(4, 2).to(torch.uint8)
    return {"images": labels[:, None].float() / 4, "labels": labels}


def _stack() -> dict[str, torch.Tensor]:
    return {
        "images": torch.rand(5, 3, 6, 16, 16, generator=_generator(6)),
        "slice_present": torch.ones(5, 6, dtype=torch.bool),
        "event": torch.arange(5),
    }


def test_the_same_generator_gives_the_same_bits_and_the_global_one_is_not_read() -> None:
    before = torch.random.get_rng_state()
    for augment, batch in ((augment_segmentation, _batch()), (augment_prognosis, _stack())):
        first, again = augment(batch, _generator(1)), augment(batch, _generator(1))
        other = augment(batch, _generator(2))
        assert all(torch.equal(first[name], again[name]) for name in batch)
        assert not torch.equal(first["images"], other["images"])
    assert torch.equal(before, torch.random.get_rng_state())


def test_no_range_is_no_change() -> None:
    batch = _batch()
    found = augment_segmentation(batch, _generator(), Ranges())
    torch.testing.assert_close(found["images"], batch["images"], atol=1e-5, rtol=0)
    assert torch.equal(found["labels"], batch["labels"])
    stack = _stack()
    found = augment_prognosis(stack, _generator(), Ranges())
    torch.testing.assert_close(found["images"], stack["images"], atol=1e-5, rtol=0)
    assert torch.equal(found["slice_present"], stack["slice_present"])


def test_labels_move_with_the_image() -> None:
    ranges = replace(
        SEGMENTATION_RANGES,
        log2_gamma=0.0,
        brightness=0.0,
        contrast=0.0,
        noise_sd=0.0,
        low_resolution=0.0,
    )
    found = augment_segmentation(_batch(), _generator(3), ranges)
    inside = (found["images"][:, 0] * 4 - found["labels"].float()).abs() < 1e-3
    # Only pixels that straddle an edge may differ.
    assert inside.float().mean() > 0.6
    nearest = warp(_batch()["images"], draw(4, ranges, _generator(3)), "nearest")
    assert torch.equal((nearest[:, 0] * 4).to(torch.uint8), found["labels"])


def test_labels_stay_labels() -> None:
    found = augment_segmentation(_batch(), _generator(4))
    assert found["labels"].dtype == torch.uint8
    assert set(found["labels"].unique().tolist()) <= {0, 1, 2, 3}
    assert torch.isfinite(found["images"]).all()


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("rotation_deg", 90.0, lambda x: torch.rot90(x, 1, (-2, -1))),
        ("flip", 1.0, lambda x: x.flip((-1, -2))),
    ],
)
def test_right_angles_and_mirrors_are_exact(field: str, value: float, expected) -> None:  # type: ignore[no-untyped-def]
    images = torch.rand(1, 1, 8, 8, generator=_generator(8))
    draws = draw(1, Ranges(**{field: value}), _generator())
    if field == "rotation_deg":
        draws = replace(draws, rotation=torch.tensor([torch.pi / 2]))
    found = warp(images, draws, "bilinear")
    turned = expected(images)
    same = torch.allclose(found, turned, atol=1e-5)
    assert same or torch.allclose(found, turned.flip((-1, -2)), atol=1e-5)


def test_a_rotation_keeps_the_shape_of_an_oblong_image() -> None:
    y, x = torch.meshgrid(torch.arange(40.0), torch.arange(80.0), indexing="ij")
    disk = ((y - 19.5) ** 2 + (x - 39.5) ** 2 < 12**2).float()[None, None]
    draws = replace(draw(1, Ranges(), _generator()), rotation=torch.tensor([0.7]))
    turned = warp(disk, draws, "bilinear")
    assert (turned - disk).abs().mean() < 0.01


def test_scale_two_doubles_and_a_shift_moves_by_the_fraction() -> None:
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    disk = ((y - 31.5) ** 2 + (x - 31.5) ** 2 < 10**2).float()[None, None]
    draws = draw(1, Ranges(), _generator())
    larger = warp(disk, replace(draws, scale=torch.tensor([2.0])), "bilinear")
    assert float(larger.sum() / disk.sum()) == pytest.approx(4.0, rel=0.03)
    moved = warp(disk, replace(draws, shift=torch.tensor([[0.25, 0.0]])), "bilinear")
    torch.testing.assert_close(moved[..., :-8], disk[..., 8:], atol=1e-4, rtol=0)


def test_all_slices_and_channels_of_a_patient_move_alike() -> None:
    stack = _stack()
    stack["images"][:, 1:] = stack["images"][:, :1]
    stack["images"][:, :, 1:] = stack["images"][:, :, :1]
    found = augment_prognosis(stack, _generator(9))["images"]
    torch.testing.assert_close(found, found[:, :1, :1].expand_as(found))


def test_slices_are_dropped_but_never_the_last() -> None:
    stack = _stack()
    found = augment_prognosis(stack, _generator(1), replace(PROGNOSIS_RANGES, slice_drop=0.9))
    kept = found["slice_present"].sum(1)
    assert (kept >= 1).all() and (kept < 6).any()
    assert torch.equal(found["event"], stack["event"])
    stack["slice_present"][:] = False
    assert not augment_prognosis(stack, _generator(1))["slice_present"].any()
