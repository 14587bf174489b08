import pytest
import torch

from protocol.errors import ConfigError
from shared_models.execution import Execution
from shared_models.inference import predict_labels, predict_logits
from shared_models.networks import build

EXECUTION = Execution(threads=1)
IMAGES = torch.rand(5, 1, 32, 32, generator=torch.Generator().manual_seed(2))


def test_batches_do_not_matter_and_twice_is_the_same_to_the_bit() -> None:
    model = build("unet", {"channels": (8, 16, 32), "dropout": 0.5}).train()
    whole = predict_logits(model, IMAGES, EXECUTION)
    assert torch.equal(whole, predict_logits(model, IMAGES, EXECUTION))
    torch.testing.assert_close(whole, predict_logits(model, IMAGES, EXECUTION, 2))
    assert model.training
    labels = predict_labels(model, IMAGES, EXECUTION)
    assert labels.dtype == torch.uint8 and torch.equal(labels, whole.argmax(1).to(torch.uint8))


def test_with_flips_a_mirrored_image_has_the_mirrored_answer() -> None:
    model = build("unet", {"channels": (8, 16, 32)})
    once = predict_logits(model, IMAGES, EXECUTION, flips=True)
    mirrored = predict_logits(model, IMAGES.flip(-1), EXECUTION, flips=True)
    torch.testing.assert_close(mirrored.flip(-1), once)
    torch.testing.assert_close(once.exp().sum(1), torch.ones(5, 32, 32))


def test_threads_are_restored() -> None:
    before = torch.get_num_threads()
    with Execution(threads=before + 1).active():
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_bf16_is_close_to_fp32_and_off_by_default() -> None:
    model = build("unet", {"channels": (8, 16, 32)})
    low = predict_logits(model, IMAGES, Execution(precision="bf16", threads=1))
    full = predict_logits(model, IMAGES, EXECUTION)
    assert low.dtype == torch.float32 and not torch.equal(low, full)
    torch.testing.assert_close(low, full, atol=0.1, rtol=0.1)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"device": "tpu"}, "Device 'tpu' is unknown; write auto, cpu or cuda."),
        ({"precision": "fp8"}, "Precision 'fp8' is unknown"),
        ({"compile": "yes"}, "Compile 'yes' is unknown"),
        ({"threads": 0}, "0 threads cannot train; write 1 or more."),
    ],
)
def test_unknown_settings_are_refused(settings: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        Execution.resolve(**settings)  # type: ignore[arg-type]


def test_resolve_leaves_nothing_open() -> None:
    found = Execution.resolve()
    assert found.device in ("cpu", "cuda") and found.precision in ("fp32", "bf16")
    assert found.compile is False and found.threads == 2
    assert Execution.resolve(device="cpu", precision="fp32", threads=3, compile=True) == Execution(
        "cpu", "fp32", 3, True
    )
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="cuda was asked for but none is visible"):
            Execution.resolve(device="cuda")
