"""Pictures that show no brain, and brains that are shown wrongly, drawn for tests and studies of the OOD score.

Every drawing is one plane ``[side, side]`` float32 of raw intensities, 0 to about 1,000; the same generator state
gives the same pixels.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Plane = NDArray[np.float32]
Draw = Callable[[np.random.Generator, int], Plane]
LEVEL = 1000.0


def abdomen(rng: np.random.Generator, side: int) -> Plane:
    """An axial abdomen: fat, muscle, liver, spleen, kidneys, spine, aorta and bowel."""
    scene = _Scene(rng, side)
    wide, high = rng.uniform(0.88, 0.95), rng.uniform(0.6, 0.72)
    scene.paint(0, 0, wide, high, 0.95)
    scene.paint(0, 0, 0.86 * wide, 0.82 * high, 0.35)
    scene.paint(0, -0.02, 0.78 * wide, 0.72 * high, 0.55)
    for _ in range(int(rng.integers(5, 10))):
        x, y = rng.uniform(-0.3, 0.5), rng.uniform(-0.35, 0.05)
        scene.paint(x, y, rng.uniform(0.06, 0.12), rng.uniform(0.05, 0.1), rng.uniform(0.2, 0.8))
    scene.paint(-0.38, -0.1, 0.32, 0.3, 0.48, wavy=0.05)
    scene.paint(0.52, 0.05, 0.15, 0.2, 0.4, wavy=0.03)
    for x in (-0.36, 0.36):
        scene.paint(x, 0.22, 0.11, 0.14, 0.62)
        scene.paint(0.8 * x, 0.22, 0.04, 0.06, 0.9)
    _spine(scene, 0.3, 0.13)
    scene.paint(0.06, 0.12, 0.05, 0.05, 0.08)
    return scene.scan()


def thorax(rng: np.random.Generator, side: int) -> Plane:
    """An axial thorax: two dark lungs, the heart, the aorta, the spine and ribs."""
    scene = _Scene(rng, side)
    wide, high = rng.uniform(0.88, 0.95), rng.uniform(0.6, 0.7)
    scene.paint(0, 0, wide, high, 0.9)
    scene.paint(0, 0, 0.9 * wide, 0.86 * high, 0.4)
    for x in (-0.42, 0.42):
        scene.paint(x, -0.02, 0.34, 0.45, 0.04, wavy=0.04)
        for _ in range(6):
            scene.paint(x + rng.normal(0, 0.12), rng.normal(0, 0.15), 0.02, 0.02, 0.3)
    scene.paint(0.1, -0.14, 0.24, 0.2, 0.6, wavy=0.03)
    scene.paint(0.14, -0.14, 0.13, 0.1, 0.15)
    scene.paint(0.1, 0.2, 0.07, 0.07, 0.1)
    for angle in np.linspace(0.4, 2 * np.pi - 0.4, 10):
        scene.paint(0.86 * wide * np.sin(angle), -0.84 * high * np.cos(angle), 0.05, 0.03, 0.15)
    _spine(scene, 0.36, 0.11)
    return scene.scan()


def knee(rng: np.random.Generator, side: int) -> Plane:
    """A sagittal knee: femur over tibia with dark cortex, cartilage, patella, muscle and fat."""
    scene = _Scene(rng, side)
    scene.paint(0, 0, rng.uniform(0.5, 0.6), 1.3, 0.8)
    scene.paint(0.12, 0, 0.4, 1.3, 0.3)
    for y, height, width in ((-0.62, 0.55, 0.2), (-0.2, 0.22, 0.32), (0.3, 0.2, 0.33), (0.72, 0.5, 0.2)):
        scene.paint(0, y, width + 0.03, height + 0.03, 0.03)
        scene.paint(0, y, width, height, 0.9)
    scene.paint(0, 0.05, 0.32, 0.04, 0.5)
    scene.paint(-0.42, -0.2, 0.1, 0.18, 0.05)
    scene.paint(-0.42, -0.2, 0.075, 0.15, 0.85)
    return scene.scan()


def noise(rng: np.random.Generator, side: int) -> Plane:
    """Nothing but noise."""
    return np.asarray(rng.uniform(0, LEVEL, (side, side)), dtype=np.float32)


def texture(rng: np.random.Generator, side: int) -> Plane:
    """A texture with the power spectrum of photographs, 1/f² (Field, J. Opt. Soc. Am. A 1987)."""
    rows, columns = np.meshgrid(np.fft.fftfreq(side), np.fft.rfftfreq(side), indexing="ij")
    distance = np.hypot(rows, columns)
    distance[0, 0] = np.inf
    phase = np.exp(2j * np.pi * rng.random(distance.shape))
    return _stretch(np.fft.irfft2(phase / distance, (side, side)))


def leaves(rng: np.random.Generator, side: int) -> Plane:
    """Occluding discs of all sizes, the "dead leaves" of Lee, Mumford and Huang (Int. J. Comput. Vis. 2001)."""
    scene = _Scene(rng, side)
    for _ in range(150):
        radius = 0.05 * rng.uniform(0.02, 1) ** -0.5
        scene.paint(rng.uniform(-1, 1), rng.uniform(-1, 1), radius, radius, rng.uniform(0, 1))
    return scene.scan()


def gradient(rng: np.random.Generator, side: int) -> Plane:
    """A photograph of next to nothing: a tilted ramp, a soft light and a horizon."""
    y, x = _axes(side)
    angle = rng.uniform(0, 2 * np.pi)
    ramp = np.cos(angle) * x + np.sin(angle) * y
    centre = rng.uniform(-0.6, 0.6, 2)
    light = np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / rng.uniform(0.1, 0.5))
    horizon = rng.uniform(0.2, 0.8) * (y > rng.uniform(-0.4, 0.4))
    return _stretch(ramp + light + horizon + rng.normal(0, 0.02, x.shape))


def page(rng: np.random.Generator, side: int) -> Plane:
    """A scanned letter: dark words on white."""
    paper = np.full((side, side), 0.95)
    step = max(4, side // 16)
    for row in range(step, side - step, step):
        column = step
        while column < side - step:
            length = int(rng.integers(step // 2 + 1, 2 * step))
            paper[row : row + step // 2, column : min(column + length, side - step)] = 0.1
            column += length + step // 2
    return np.asarray(LEVEL * np.clip(paper + rng.normal(0, 0.02, paper.shape), 0, 1), dtype=np.float32)


ORGANS: dict[str, Draw] = {"abdomen": abdomen, "thorax": thorax, "knee": knee}
PICTURES: dict[str, Draw] = {
    "noise": noise,
    "texture": texture,
    "leaves": leaves,
    "gradient": gradient,
    "page": page,
}


def negative(image: NDArray[np.generic]) -> NDArray[np.float32]:
    """The image as a photographic negative, background and all; each channel ``[..., H, W]`` by itself."""
    plane = np.asarray(image, dtype=np.float32)
    return np.asarray(plane.max(axis=(-2, -1), keepdims=True) - plane, dtype=np.float32)


def inverted_head(image: NDArray[np.generic], head: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Intensities inverted inside the head only, the background as it was; ``image`` is ``[C, H, W]``."""
    plane = np.asarray(image, dtype=np.float32)
    inside = plane[:, head]
    low, high = inside.min(axis=1), inside.max(axis=1)
    return np.where(head, (low + high)[:, None, None] - plane, plane * 0).astype(np.float32)


class _Scene:
    """A canvas from -1 to 1 both ways, y downwards, on which shapes cover one another."""

    def __init__(self, rng: np.random.Generator, side: int) -> None:
        self.rng = rng
        self.side = side
        self.y, self.x = _axes(side)
        # No two bodies are alike: positions, sizes and intensities all vary a little.
        self.canvas = np.zeros((side, side))
        self.wobble = [self._smooth(side / 6) * 0.03 for _ in range(2)]

    def _smooth(self, sigma: float) -> NDArray[np.float64]:
        field = ndimage.gaussian_filter(self.rng.standard_normal((self.side, self.side)), sigma, mode="wrap")
        return np.asarray((field - field.mean()) / max(float(field.std()), 1e-12))

    def paint(self, x: float, y: float, width: float, height: float, value: float, wavy: float = 0.0) -> None:
        """Cover a soft-edged ellipse with an intensity."""
        x, y = x + self.rng.normal(0, 0.012), y + self.rng.normal(0, 0.012)
        width, height = (size * self.rng.uniform(0.93, 1.07) for size in (width, height))
        radius = np.hypot((self.x + self.wobble[0] - x) / width, (self.y + self.wobble[1] - y) / height)
        if wavy:
            radius = radius + wavy * self._smooth(self.side / 12)
        soft = np.clip((1 - radius) * min(width, height) * self.side / 2 + 0.5, 0, 1)
        self.canvas += soft * (value * self.rng.uniform(0.92, 1.08) - self.canvas)

    def scan(self) -> Plane:
        """What a scanner makes of it: texture, uneven sensitivity, and noise that is never negative."""
        signal = self.canvas * (1 + 0.04 * self._smooth(self.side / 40)) * np.exp(0.1 * self._smooth(self.side / 2))
        sigma = self.rng.uniform(0.01, 0.03)
        noisy = np.hypot(signal + self.rng.normal(0, sigma, signal.shape), self.rng.normal(0, sigma, signal.shape))
        return np.asarray(LEVEL * noisy, dtype=np.float32)


def _spine(scene: _Scene, y: float, size: float) -> None:
    scene.paint(0, y, size, 0.8 * size, 0.5)
    scene.paint(0, y + 1.2 * size, 0.4 * size, 0.4 * size, 0.9)
    scene.paint(0, y + 1.7 * size, 0.3 * size, 0.5 * size, 0.3)


def _axes(side: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    line = np.linspace(-1, 1, side)
    y, x = np.meshgrid(line, line, indexing="ij")
    return y, x


def _stretch(field: NDArray[np.float64]) -> Plane:
    low, high = np.percentile(field, [0.5, 99.5])
    return np.asarray(LEVEL * np.clip((field - low) / (high - low), 0, 1), dtype=np.float32)
