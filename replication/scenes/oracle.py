"""The exact judge: pixels -> scene -> does the prompt hold.

A picture is read as the scene of least squared error among all scenes (maximum likelihood under Gaussian pixel
noise): each grid cell is empty or one of the 90 objects, and at most one of 4 x 6 boxes with something inside
replaces the four cells that it covers.
"""

import numpy as np

from replication.scenes.grammar import holds, parse
from replication.scenes.renderer import BACKGROUND, CELL, FRAME, IMAGE_SIZE, RGB, SPRITES
from replication.scenes.scene import BOX, BOX_CENTRES, CELLS, COLORS, SHAPES, TEXTURES, Scene, Thing, free_cells

KINDS = [(shape, color, texture) for color in COLORS for shape in SHAPES for texture in TEXTURES]
EMPTY = len(KINDS)
TEMPLATES = np.concatenate(
    [SPRITES.reshape(EMPTY, CELL, CELL, 3), np.broadcast_to(BACKGROUND, (1, CELL, CELL, 3))]
).astype(np.float32)
# A box shows an object of another colour inside, or nothing: a red square in a red box would be four red squares.
INSIDE = np.array([[kind[1] != color for kind in KINDS] + [True] for color in COLORS])


def _errors(windows: np.ndarray) -> np.ndarray:
    """Squared error of (B, 8, 8, 3) windows against every template: (B, 91)."""
    flat, templates = windows.reshape(len(windows), -1), TEMPLATES.reshape(len(TEMPLATES), -1)
    return (flat**2).sum(1)[:, None] - 2 * flat @ templates.T + (templates**2).sum(1)


def read_scenes(images: np.ndarray) -> list[Scene]:
    """The most likely scene of each picture.

    Args:
        images: (B, 24, 24, 3) uint8.

    Raises:
        ValueError: the pictures have another shape or type.
    """
    if images.shape[1:] != (IMAGE_SIZE, IMAGE_SIZE, 3) or images.dtype != np.uint8:
        raise ValueError(
            f"the oracle reads (B, {IMAGE_SIZE}, {IMAGE_SIZE}, 3) uint8 pictures of the embedded world, "
            f"not {images.shape} {images.dtype}; use an external judge for other pictures"
        )
    pictures = images.astype(np.float32)
    half = CELL // 2

    def window(row, column):
        return pictures[:, row * half : row * half + CELL, column * half : column * half + CELL]

    cell_errors = np.stack([_errors(window(*cell)) for cell in CELLS], axis=1)  # (B, 9, 91)
    inner_errors = np.stack([_errors(window(*centre)) for centre in BOX_CENTRES], axis=1)  # (B, 4, 91)
    cell_best = cell_errors.min(2)
    totals = [cell_best.sum(1)]
    for place, (row, column) in enumerate(BOX_CENTRES):
        block = pictures[:, (row - 1) * half : (row + 3) * half, (column - 1) * half : (column + 3) * half][:, FRAME]
        outside = cell_best[:, [CELLS.index(cell) for cell in free_cells((row, column))]].sum(1)
        for color, rgb in enumerate(RGB):
            inner = np.where(INSIDE[color], inner_errors[:, place], np.inf).min(1)
            totals.append(((block - rgb) ** 2).sum((1, 2)) + inner + outside)
    best = np.argmin(np.stack(totals, axis=1), axis=1)

    scenes = []
    for index, hypothesis in enumerate(best):
        things, centre = [], None
        if hypothesis > 0:
            place, color = divmod(int(hypothesis) - 1, len(COLORS))
            centre = BOX_CENTRES[place]
            things.append(Thing(BOX, COLORS[color], "solid", *centre))
            kind = int(np.where(INSIDE[color], inner_errors[index, place], np.inf).argmin())
            if kind != EMPTY:
                things.append(Thing(*KINDS[kind], *centre))
        for cell in free_cells(centre):
            kind = int(cell_errors[index, CELLS.index(cell)].argmin())
            if kind != EMPTY:
                things.append(Thing(*KINDS[kind], *cell))
        scenes.append(tuple(things))
    return scenes


def judge(images: np.ndarray, prompts: list[str]) -> np.ndarray:
    """Whether each picture shows what its prompt says: (B,) bool.

    Raises:
        ValueError: a prompt is outside the grammar, or the pictures are not of the embedded world.
    """
    meanings = [parse(prompt) for prompt in prompts]
    return np.array([holds(m, scene) for m, scene in zip(meanings, read_scenes(images), strict=True)], dtype=bool)
