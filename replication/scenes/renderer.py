"""Scenes to pixels: 24 x 24 RGB, 8-pixel cells, slight noise and lighting so that no two renderings are equal."""

import numpy as np

from replication.scenes.scene import BOX, COLORS, GRID, SHAPES, TEXTURES, Scene

CELL = 8
IMAGE_SIZE = GRID * CELL
BACKGROUND = np.array((238, 238, 232), dtype=np.float32)
RGB = np.array(
    ((214, 39, 40), (44, 150, 60), (40, 90, 210), (245, 195, 30), (150, 70, 180), (35, 35, 35)), dtype=np.float32
)
PALE = 0.6  # the off-pixels of stripes and checks are this share of background
NOISE = 2.0  # standard deviation of the pixel noise, in grey levels of 255
LIGHTING = 0.02  # the brightness of a rendering varies by up to this share

_y, _x = np.mgrid[:CELL, :CELL] - (CELL - 1) / 2
MASKS = np.stack(
    [
        np.ones((CELL, CELL), dtype=bool),  # square
        _x**2 + _y**2 <= 16.5,  # circle
        np.abs(_x) <= (_y + 4.5) / 2,  # triangle
        (np.abs(_x) < 1.5) | (np.abs(_y) < 1.5),  # cross
        np.abs(_x) + np.abs(_y) <= 4.0,  # diamond
    ]
)
_on = np.stack(
    [
        np.ones((CELL, CELL), dtype=bool),  # solid
        np.arange(CELL)[:, None].repeat(CELL, 1) % 4 < 2,  # striped
        (np.arange(CELL)[:, None] // 2 + np.arange(CELL) // 2) % 2 == 0,  # checkered
    ]
)


def _sprites() -> np.ndarray:
    """All objects as (color, shape, texture, CELL, CELL, 3) float32 on the background."""
    pale = RGB * (1 - PALE) + BACKGROUND * PALE
    filled = np.where(_on[None, ..., None], RGB[:, None, None, None], pale[:, None, None, None])
    return np.where(MASKS[None, :, None, ..., None], filled[:, None], BACKGROUND)


SPRITES = _sprites()
FRAME = np.ones((2 * CELL, 2 * CELL), dtype=bool)
FRAME[CELL // 2 : -CELL // 2, CELL // 2 : -CELL // 2] = False


def draw(scene: Scene) -> np.ndarray:
    """A scene without noise: (24, 24, 3) float32 in 0..255."""
    image = np.broadcast_to(BACKGROUND, (IMAGE_SIZE, IMAGE_SIZE, 3)).copy()
    for thing in sorted(scene, key=lambda thing: thing.shape != BOX):
        color = COLORS.index(thing.color)
        half = CELL // 2
        top, left = thing.row * half, thing.column * half
        if thing.shape == BOX:
            image[top - half : top + 3 * half, left - half : left + 3 * half][FRAME] = RGB[color]
        else:
            sprite = SPRITES[color, SHAPES.index(thing.shape), TEXTURES.index(thing.texture)]
            image[top : top + CELL, left : left + CELL] = sprite
    return image


def render(scenes: list[Scene], rng: np.random.Generator) -> np.ndarray:
    """Scenes as pictures: (len(scenes), 24, 24, 3) uint8, with lighting and pixel noise drawn from `rng`."""
    images = np.stack([draw(scene) for scene in scenes])
    lighting = rng.uniform(1 - LIGHTING, 1 + LIGHTING, size=(len(scenes), 1, 1, 1)).astype(np.float32)
    noise = rng.standard_normal(images.shape, dtype=np.float32) * NOISE
    return np.clip(np.rint(images * lighting + noise), 0, 255).astype(np.uint8)
