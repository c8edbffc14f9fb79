"""What a scene is: coloured, textured shapes on a 3 x 3 grid, and at most one box with an object inside."""

from typing import NamedTuple

COLORS = ("red", "green", "blue", "yellow", "purple", "black")
SHAPES = ("square", "circle", "triangle", "cross", "diamond")
TEXTURES = ("solid", "striped", "checkered")
GRID = 3
BOX = "box"

# Positions are centres in half cells: grid cells have even coordinates 0, 2, 4; a box covers 2 x 2 cells, so
# that its centre, and the object inside it, have odd coordinates 1, 3.
CELLS = tuple((2 * row, 2 * column) for row in range(GRID) for column in range(GRID))
BOX_CENTRES = tuple((2 * row + 1, 2 * column + 1) for row in range(GRID - 1) for column in range(GRID - 1))


class Thing(NamedTuple):
    """One object of a scene, fully specified. A box has ``shape == "box"`` and is always solid."""

    shape: str
    color: str
    texture: str
    row: int
    column: int


Scene = tuple[Thing, ...]


def free_cells(box_centre: tuple[int, int] | None) -> tuple[tuple[int, int], ...]:
    """The grid cells that a box at `box_centre` leaves free (all nine when there is no box)."""
    if box_centre is None:
        return CELLS
    row, column = box_centre
    return tuple(cell for cell in CELLS if abs(cell[0] - row) > 1 or abs(cell[1] - column) > 1)
