"""What the scanner adds: texture, receive field, mis-triggering, Rician noise, integers.

All functions take (T, Z, Y, X) float32 images relative to blood and their own generator.
"""

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "acquire",
    "mistrigger",
    "noise_pool",
    "receive_field",
    "smooth_texture",
    "zero_fill",
]

Image = NDArray[np.float32]
MAX_STORED = 32767
POOL_IMAGES = 16


def receive_field(size_px: int, amplitude: float, rng: np.random.Generator) -> Image:
    """Return a smooth positive field, (Y, X), mean 1: a random cubic in the exponent."""
    axis = np.linspace(-1, 1, size_px, dtype=np.float32)
    y, x = axis[:, None], axis[None, :]
    powers = [(i, j) for i in range(4) for j in range(4) if 1 <= i + j <= 3]
    weights = rng.normal(0, 1, len(powers))
    exponent = np.zeros((size_px, size_px), np.float32)
    for (i, j), weight in zip(powers, weights, strict=True):
        exponent += np.float32(weight / (i + j)) * y**i * x**j
    exponent *= np.float32(amplitude) / max(float(np.abs(exponent).max()), 1e-6)
    field = np.exp(exponent - exponent.mean())
    return (field / field.mean()).astype(np.float32)


def smooth_texture(shape: tuple[int, int, int], cell_px: int, rng: np.random.Generator) -> Image:
    """Return (Z, Y, X) bilinearly interpolated noise of unit sd on a grid of ``cell_px`` cells."""
    num, size_y, size_x = shape
    coarse = rng.standard_normal((num, size_y // cell_px + 2, size_x // cell_px + 2), np.float32)

    def weights(size: int) -> Image:
        position = np.arange(size) / cell_px
        low = position.astype(int)
        table = np.zeros((size, size // cell_px + 2), np.float32)
        table[np.arange(size), low] = 1 - (position - low)
        table[np.arange(size), low + 1] = position - low
        return table

    return np.matmul(np.matmul(weights(size_y), coarse), weights(size_x).T)


def mistrigger(images: Image, rate: float, rng: np.random.Generator) -> None:
    """Replace, in a share ``rate`` of the slices, some k-space lines by the neighbouring frame's.

    In place. An irregular beat puts lines of the wrong phase into an image: blur of what moves and
    faint ghosts along the phase direction (rows).
    """
    num_slices, size_y = images.shape[1:3]
    affected = np.flatnonzero(rng.random(num_slices) < rate)
    for z in affected:
        late = rng.random(size_y) < rng.uniform(0.15, 0.4)
        step = int(rng.choice((-1, 1)))
        spectrum = np.fft.fft(images[:, z], axis=1)
        spectrum[:, late] = np.roll(spectrum, step, axis=0)[:, late]
        images[:, z] = np.fft.ifft(spectrum, axis=1).real.astype(np.float32)


def noise_pool(size_px: int, rng: np.random.Generator) -> Image:
    """Return the normal deviates of one examination, enough for `POOL_IMAGES` images."""
    return rng.standard_normal(POOL_IMAGES * size_px * size_px, np.float32)


def acquire(
    images: Image, sd: float, full_scale: float, pool: Image, rng: np.random.Generator
) -> NDArray[np.uint16]:
    """Return stored integers: magnitude of image plus complex Gaussian noise of sd ``sd``, scaled.

    A signal of 1 becomes about ``full_scale``. Every image takes its noise from two random
    windows of one pool of normal deviates, which is several times faster than fresh ones and,
    since no two windows coincide, leaves nothing a network could learn.
    """
    *lead, size_y, size_x = images.shape
    num, pixels = int(np.prod(lead)), size_y * size_x
    windows = rng.integers(0, len(pool) - pixels, (num, 2))
    stored = np.empty((num, pixels), np.uint16)
    flat = images.reshape(num, pixels)
    scale, noise = np.float32(full_scale), np.float32(sd * full_scale)
    for index, (first, second) in enumerate(windows):
        real = flat[index] * scale
        imaginary = pool[first : first + pixels] * noise
        real += imaginary
        real *= real
        np.multiply(pool[second : second + pixels], noise, out=imaginary)
        imaginary *= imaginary
        real += imaginary
        np.sqrt(real, out=real)
        real += np.float32(0.5)
        stored[index] = np.minimum(real, np.float32(MAX_STORED), out=real)
    return stored.reshape(images.shape)


def zero_fill(images: Image) -> Image:
    """Return images on twice the matrix by zero-filling k-space, as GE's "zip" does."""
    *_, size_y, size_x = images.shape
    spectrum = np.fft.fftshift(np.fft.fft2(images), axes=(-2, -1))
    pad = ((0, 0),) * (images.ndim - 2) + ((size_y // 2,) * 2, (size_x // 2,) * 2)
    wide = np.fft.ifft2(np.fft.ifftshift(np.pad(spectrum, pad), axes=(-2, -1)))
    return (4 * np.abs(wide)).astype(np.float32)
