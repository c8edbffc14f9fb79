"""Drawing from the embedded world: meanings of each subtask, scenes that show them, and near misses."""

import hashlib

import numpy as np

from replication.scenes.grammar import COUNTS, PREFIXES, Meaning, Spec, canonical, holds, related, write
from replication.scenes.scene import BOX, BOX_CENTRES, CELLS, COLORS, SHAPES, TEXTURES, Scene, Thing, free_cells

EVALUATION_SHARE = 0.2  # of all meanings, chosen by their hash: held out from every kind of training


def _choose(rng: np.random.Generator, options, size: int | None = None):
    """Distinct draws from a short sequence (one draw when `size` is None)."""
    if size is None:
        return options[int(rng.integers(len(options)))]
    return [options[i] for i in rng.permutation(len(options))[:size]]


def sample_meaning(subtask: str, rng: np.random.Generator) -> Meaning:
    """A random meaning of one of the nine subtasks (``replication.scenes.SUBTASKS``)."""
    maybe_color, maybe_texture = _choose(rng, (None, *COLORS)), _choose(rng, (None, *TEXTURES))
    shapes, colors = _choose(rng, SHAPES, 3), _choose(rng, COLORS, 3)
    match subtask:
        case "single_object":
            return Meaning((Spec(shapes[0], maybe_color, maybe_texture),))
        case "two_objects":
            return Meaning((Spec(shapes[0], maybe_color), Spec(shapes[1])))
        case "color_attribution":
            return Meaning((Spec(shapes[0], colors[0]), Spec(shapes[1], colors[1])))
        case "shape":
            return Meaning(tuple(Spec(shape, colors[0], maybe_texture) for shape in shapes[:2]))
        case "texture":
            first, second = _choose(rng, TEXTURES, 2)
            return Meaning((Spec(shapes[0], maybe_color, first), Spec(_choose(rng, SHAPES), maybe_color, second)))
        case "spatial":
            objects = (Spec(shapes[0], colors[0]), Spec(shapes[1], colors[1]))
            return Meaning(objects, ((_choose(rng, ("left of", "right of", "above", "below")), 0, 1),))
        case "counting":
            return Meaning((Spec(shapes[0], maybe_color, maybe_texture),), count=_choose(rng, tuple(COUNTS.values())))
        case "non_spatial":
            if rng.random() < 0.5:
                return Meaning((Spec(shapes[0], colors[0], maybe_texture), Spec(BOX, colors[1])), (("inside", 0, 1),))
            return Meaning((Spec(shapes[0], colors[0]), Spec(shapes[1], colors[1])), (("touching", 0, 1),))
        case "complex":
            objects = tuple(Spec(shape, color) for shape, color in zip(shapes, colors, strict=True))
            horizontal, vertical = _choose(rng, ("left of", "right of")), _choose(rng, ("above", "below"))
            first, second = _choose(rng, (horizontal, vertical), 2)
            return Meaning(objects, ((first, 0, 1), (second, 0, 2)))
    raise ValueError(f'there is no subtask "{subtask}"')


def is_held_out(meaning: Meaning) -> bool:
    """Whether a meaning belongs to evaluation: a fixed fifth of all meanings, whatever their wording."""
    digest = hashlib.sha256(canonical(meaning).encode()).digest()
    return digest[0] < EVALUATION_SHARE * 256


def sample_split_meaning(subtask: str, held_out: bool, rng: np.random.Generator) -> Meaning:
    """A random meaning from one side of the split."""
    while True:
        meaning = sample_meaning(subtask, rng)
        if is_held_out(meaning) == held_out:
            return meaning


def sample_prompt(meaning: Meaning, rng: np.random.Generator) -> str:
    """One of the wordings of a meaning."""
    return write(meaning, _choose(rng, PREFIXES))


def sample_scene(meaning: Meaning, rng: np.random.Generator) -> Scene:
    """A random scene that shows the meaning and nothing else; what the prompt leaves open is drawn freely."""
    while True:
        scene = _place(meaning, rng)
        if holds(meaning, scene):
            return scene


def _place(meaning: Meaning, rng: np.random.Generator) -> Scene:
    if meaning.count is not None:
        spec = meaning.objects[0]
        look = (spec.shape, spec.color or _choose(rng, COLORS), spec.texture or _choose(rng, TEXTURES))
        return tuple(Thing(*look, *cell) for cell in _choose(rng, CELLS, meaning.count))
    looks = [
        (spec.shape, spec.color or _choose(rng, COLORS), spec.texture or _choose(rng, TEXTURES))
        for spec in meaning.objects
    ]
    if meaning.relations and meaning.relations[0][0] == "inside":
        centre = _choose(rng, BOX_CENTRES)
        return Thing(*looks[0], *centre), Thing(BOX, looks[1][1], "solid", *centre)
    while True:
        cells = _choose(rng, CELLS, len(looks))
        things = tuple(Thing(*look, *cell) for look, cell in zip(looks, cells, strict=True))
        if all(related(name, things[subject], things[target]) for name, subject, target in meaning.relations):
            return things


def add_distractors(scene: Scene, number: int, rng: np.random.Generator) -> Scene:
    """The scene with up to `number` further random objects in its free cells."""
    box = next(((thing.row, thing.column) for thing in scene if thing.shape == BOX), None)
    taken = {(thing.row, thing.column) for thing in scene}
    cells = [cell for cell in free_cells(box) if cell not in taken]
    return scene + tuple(
        Thing(_choose(rng, SHAPES), _choose(rng, COLORS), _choose(rng, TEXTURES), *cell)
        for cell in _choose(rng, cells, min(number, len(cells)))
    )


def near_miss(meaning: Meaning, rng: np.random.Generator) -> Meaning:
    """A meaning that differs in one attribute, relation or count, and is not the same claim."""
    while True:
        changed = _change_one(meaning, rng)
        inside_its_color = changed.relations[:1] == (("inside", 0, 1),) and len({o.color for o in changed.objects}) == 1
        if canonical(changed) != canonical(meaning) and not inside_its_color:
            return changed


def _change_one(meaning: Meaning, rng: np.random.Generator) -> Meaning:
    if meaning.count is not None and rng.random() < 0.6:
        return meaning._replace(count=_choose(rng, tuple(COUNTS.values())))
    if meaning.relations and rng.random() < 0.6:
        which = int(rng.integers(len(meaning.relations)))
        name, subject, target = meaning.relations[which]
        if name in ("inside", "touching"):
            # a box that is empty, or two objects apart, is made by `miss_scene`; here the partner changes
            return _change_attribute(meaning, rng)
        relations = list(meaning.relations)
        relations[which] = (_choose(rng, ("left of", "right of", "above", "below")), subject, target)
        return meaning._replace(relations=tuple(relations))
    return _change_attribute(meaning, rng)


def _change_attribute(meaning: Meaning, rng: np.random.Generator) -> Meaning:
    which = int(rng.integers(len(meaning.objects)))
    spec = meaning.objects[which]
    fields = [field for field in ("color", "texture") if getattr(spec, field) is not None]
    field = _choose(rng, fields + (["shape"] if spec.shape != BOX else []))
    options = {"color": COLORS, "texture": TEXTURES, "shape": SHAPES}[field]
    objects = list(meaning.objects)
    objects[which] = spec._replace(**{field: _choose(rng, options)})
    return meaning._replace(objects=tuple(objects))


def miss_scene(meaning: Meaning, rng: np.random.Generator) -> Scene:
    """A scene on which the prompt nearly holds but does not: one attribute, relation or count is wrong."""
    while True:
        if meaning.relations and meaning.relations[0][0] in ("inside", "touching") and rng.random() < 0.5:
            scene = _break_contact(meaning, rng)
        else:
            scene = sample_scene(near_miss(meaning, rng), rng)
        if not holds(meaning, scene):
            return scene


def _break_contact(meaning: Meaning, rng: np.random.Generator) -> Scene:
    """The objects of an "inside" or "touching" prompt, present but apart."""
    subject, target = sample_scene(meaning, rng)
    if target.shape == BOX:
        cell = _choose(rng, free_cells((target.row, target.column)))
        return subject._replace(row=cell[0], column=cell[1]), target
    first, second = _choose(rng, CELLS, 2)
    return (
        subject._replace(row=first[0], column=first[1]),
        target._replace(row=second[0], column=second[1]),
    )
