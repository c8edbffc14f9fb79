"""The prompt grammar: a prompt is written from its meaning, and parses back to it.

Nine subtasks (``replication.scenes.STRATA``) in the manner of GenEval and T2I-CompBench, e.g. "a red circle and a
square", "three striped crosses", "a picture of a red circle inside a blue box".
"""

from itertools import permutations
from typing import NamedTuple

from replication.scenes.scene import BOX, COLORS, SHAPES, TEXTURES, Scene, Thing

PREFIXES = ("", "a picture of ", "an image of ")
COUNTS = {"two": 2, "three": 3, "four": 4}
PLURALS = {shape: "crosses" if shape == "cross" else f"{shape}s" for shape in SHAPES}
RELATIONS = ("left of", "right of", "above", "below", "inside", "touching")
INVERSE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}

LONGEST_PROMPT = 17  # words, as in "an image of a red circle left of a blue square and right of a green cross"
WORDS = tuple(
    dict.fromkeys(
        " ".join((*PREFIXES, *COUNTS, *COLORS, *TEXTURES, *SHAPES, *PLURALS.values(), BOX, *RELATIONS, "and a")).split()
    )
)


class Spec(NamedTuple):
    """What a prompt says about one object; ``None`` where it says nothing."""

    shape: str
    color: str | None = None
    texture: str | None = None

    def matches(self, thing: Thing) -> bool:
        return self.shape == thing.shape and self.color in (None, thing.color) and self.texture in (None, thing.texture)


class Meaning(NamedTuple):
    """What a prompt claims: objects, relations ``(name, subject, object)`` between them, or an exact count."""

    objects: tuple[Spec, ...]
    relations: tuple[tuple[str, int, int], ...] = ()
    count: int | None = None


def _noun_phrase(spec: Spec, noun: str) -> str:
    return " ".join(word for word in (spec.texture, spec.color, noun) if word)


def write(meaning: Meaning, prefix: str = "") -> str:
    """The prompt text of a meaning, with one of `PREFIXES` in front."""
    if meaning.count is not None:
        number = next(word for word, count in COUNTS.items() if count == meaning.count)
        return f"{prefix}{number} {_noun_phrase(meaning.objects[0], PLURALS[meaning.objects[0].shape])}"
    phrases = [f"a {_noun_phrase(spec, spec.shape)}" for spec in meaning.objects]
    if not meaning.relations:
        return prefix + " and ".join(phrases)
    first, *others = (f"{name} {phrases[target]}" for name, _, target in meaning.relations)
    return prefix + " and ".join((f"{phrases[0]} {first}", *others))


def parse(prompt: str) -> Meaning:
    """The meaning of a prompt.

    Raises:
        ValueError: the prompt is outside the grammar; the message names the prompt and the word.
    """
    prefix = next(prefix for prefix in sorted(PREFIXES, key=len, reverse=True) if prompt.startswith(prefix))
    words = prompt[len(prefix) :].split()
    if words and words[0] in COUNTS:
        spec, rest = _read_spec(words[1:], {plural: shape for shape, plural in PLURALS.items()}, prompt)
        if rest:
            raise _outside(prompt, rest[0])
        return Meaning((spec,), count=COUNTS[words[0]])
    spec, rest = _read_article_spec(words, prompt)
    objects, relations = [spec], []
    while rest:
        if objects[1:]:
            if rest[0] != "and" or not relations:
                raise _outside(prompt, rest[0])
            rest = rest[1:]
        joined = " ".join(rest)
        name = next((name for name in RELATIONS if joined.startswith(f"{name} ")), None)
        if name is None and (rest[:1] != ["and"] or relations):
            raise _outside(prompt, (rest or [""])[0])
        spec, rest = _read_article_spec(rest[len((name or "and").split()) :], prompt)
        objects.append(spec)
        if name is not None:
            relations.append((name, 0, len(objects) - 1))
    return Meaning(tuple(objects), tuple(relations))


def _outside(prompt: str, word: str) -> ValueError:
    return ValueError(
        f'the prompt "{prompt}" is outside the grammar of the embedded world at "{word}"; '
        'write it like "a red circle above a blue square" (replication/scenes/grammar.py lists the words)'
    )


def _read_article_spec(words: list[str], prompt: str) -> tuple[Spec, list[str]]:
    if words[:1] != ["a"]:
        raise _outside(prompt, (words or ["its end"])[0])
    return _read_spec(words[1:], {shape: shape for shape in (*SHAPES, BOX)}, prompt)


def _read_spec(words: list[str], nouns: dict[str, str], prompt: str) -> tuple[Spec, list[str]]:
    texture = color = None
    if words and words[0] in TEXTURES:
        texture, *words = words
    if words and words[0] in COLORS:
        color, *words = words
    if not words or words[0] not in nouns:
        raise _outside(prompt, (words or ["its end"])[0])
    return Spec(nouns[words[0]], color, texture), words[1:]


def canonical(meaning: Meaning) -> str:
    """One text for all prompts that claim the same: objects sorted, "right of" and "below" turned round.

    Used to keep training and evaluation apart by meaning, not only by wording.
    """
    if meaning.count is not None:
        return write(meaning)
    nouns = [_noun_phrase(spec, spec.shape) for spec in meaning.objects]
    if not meaning.relations:
        return " and ".join(sorted(nouns))
    claims = []
    for name, subject, target in meaning.relations:
        if name in ("right of", "below"):
            name, subject, target = INVERSE[name], target, subject
        pair = (nouns[subject], nouns[target])
        claims.append(f" {name} ".join(sorted(pair) if name == "touching" else pair))
    return " and ".join(sorted(claims))


def related(name: str, subject: Thing, target: Thing) -> bool:
    """Whether a relation holds between two objects of a scene."""
    rows, columns = subject.row - target.row, subject.column - target.column
    match name:
        case "left of":
            return columns < 0
        case "right of":
            return columns > 0
        case "above":
            return rows < 0
        case "below":
            return rows > 0
        case "inside":
            return rows == columns == 0
        case "touching":
            return {abs(rows), abs(columns)} == {0, 2}
    raise ValueError(f'there is no relation "{name}"; choose one of {", ".join(RELATIONS)}')


def holds(meaning: Meaning, scene: Scene) -> bool:
    """Whether a scene satisfies a meaning: distinct objects that match and stand in the relations.

    A count is exact; otherwise further objects may be present, as in GenEval.
    """
    if meaning.count is not None:
        return sum(meaning.objects[0].matches(thing) for thing in scene) == meaning.count
    return any(
        all(spec.matches(thing) for spec, thing in zip(meaning.objects, things, strict=True))
        and all(related(name, things[subject], things[target]) for name, subject, target in meaning.relations)
        for things in permutations(scene, len(meaning.objects))
    )
