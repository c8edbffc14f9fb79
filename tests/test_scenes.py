"""The embedded world: grammar, oracle and prompt split, against independent re-computations."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replication.prompts import check_disjoint, distinct_prompts, probe_set, prompt_table
from replication.scenes import STRATA, SUBTASKS
from replication.scenes.grammar import PREFIXES, Meaning, Spec, canonical, holds, parse, write
from replication.scenes.oracle import judge, read_scenes
from replication.scenes.renderer import IMAGE_SIZE, render
from replication.scenes.scene import BOX, Thing
from replication.scenes.world import (
    add_distractors,
    is_held_out,
    miss_scene,
    near_miss,
    sample_meaning,
    sample_scene,
)

seeds = st.integers(0, 2**32 - 1)
subtasks = st.sampled_from(SUBTASKS)


@given(subtasks, seeds, st.sampled_from(PREFIXES))
@settings(max_examples=300, deadline=None)
def test_a_prompt_parses_back_to_its_meaning(subtask, seed, prefix):
    meaning = sample_meaning(subtask, np.random.default_rng(seed))
    assert parse(write(meaning, prefix)) == meaning


@pytest.mark.parametrize(
    ("prompt", "word"),
    [
        ("a red dragon", "dragon"),
        ("red circle", "red"),
        ("a red circle above", "above"),
        ("five circles", "five"),
        ("three red circle", "circle"),
        ("a circle and a square and a cross", "and"),
        ("", "its end"),
        ("a picture of", "a"),
    ],
)
def test_a_prompt_outside_the_grammar_is_named(prompt, word):
    with pytest.raises(ValueError, match="outside the grammar") as error:
        parse(prompt)
    assert f'"{prompt}"' in str(error.value)


RED_CIRCLE = Thing("circle", "red", "solid", 0, 0)
BLUE_SQUARE = Thing("square", "blue", "striped", 0, 2)
GREEN_CROSS = Thing("cross", "green", "solid", 4, 4)
SCENE = (RED_CIRCLE, BLUE_SQUARE, GREEN_CROSS)
BOXED = (Thing(BOX, "purple", "solid", 3, 3), Thing("circle", "red", "solid", 3, 3), RED_CIRCLE)


@pytest.mark.parametrize(
    ("prompt", "scene", "truth"),
    [
        ("a circle", SCENE, True),
        ("a blue circle", SCENE, False),
        ("a striped square and a red circle", SCENE, True),
        ("a red circle left of a blue square", SCENE, True),
        ("a red circle right of a blue square", SCENE, False),
        ("a red circle above a blue square", SCENE, False),
        ("a red circle touching a blue square", SCENE, True),
        ("a blue square touching a green cross", SCENE, False),
        ("a red circle above a green cross and left of a blue square", SCENE, True),
        ("a red circle inside a purple box", BOXED, True),
        ("a red circle inside a green box", BOXED, False),
        ("two circles", BOXED, True),
        ("two red circles", SCENE, False),
        ("a circle and a circle", SCENE, False),
        ("a circle and a circle", BOXED, True),
    ],
)
def test_truth_on_hand_worked_scenes(prompt, scene, truth):
    assert holds(parse(prompt), scene) is truth
    picture = render([scene], np.random.default_rng(0))
    assert judge(picture, [prompt]).tolist() == [truth]


def test_same_claim_in_other_words_is_one_meaning():
    same = [
        ("a red circle and a blue square", "an image of a blue square and a red circle"),
        ("a red circle left of a blue square", "a blue square right of a red circle"),
        ("a red circle touching a blue square", "a blue square touching a red circle"),
        (
            "a red circle above a blue square and left of a green cross",
            "a red circle left of a green cross and above a blue square",
        ),
    ]
    for one, other in same:
        assert canonical(parse(one)) == canonical(parse(other))
    assert canonical(parse("a red circle above a blue square")) != canonical(parse("a blue square above a red circle"))


@given(subtasks, seeds)
@settings(max_examples=200, deadline=None)
def test_scenes_show_their_prompt_and_misses_do_not(subtask, seed):
    rng = np.random.default_rng(seed)
    meaning = sample_meaning(subtask, rng)
    assert holds(meaning, sample_scene(meaning, rng))
    assert not holds(meaning, miss_scene(meaning, rng))
    if meaning.count is None:
        assert holds(meaning, add_distractors(sample_scene(meaning, rng), 2, rng))


@given(subtasks, seeds)
@settings(max_examples=200, deadline=None)
def test_a_near_miss_changes_exactly_one_thing(subtask, seed):
    rng = np.random.default_rng(seed)
    meaning = sample_meaning(subtask, rng)
    other = near_miss(meaning, rng)
    changes = (meaning.count != other.count) + sum(
        a != b for a, b in zip(meaning.relations, other.relations, strict=True)
    )
    for before, after in zip(meaning.objects, other.objects, strict=True):
        changes += sum(a != b for a, b in zip(before, after, strict=True))
    assert changes == 1


def test_the_oracle_is_right_on_ten_thousand_random_cases():
    rng = np.random.default_rng(20250722)
    meanings = [sample_meaning(SUBTASKS[i % len(SUBTASKS)], rng) for i in range(10_000)]
    scenes = [sample_scene(m, rng) if rng.random() < 0.5 else miss_scene(m, rng) for m in meanings]
    truth = np.array([holds(meaning, scene) for meaning, scene in zip(meanings, scenes, strict=True)])
    verdicts = judge(render(scenes, rng), [write(meaning) for meaning in meanings])
    assert 0.4 < truth.mean() < 0.6
    assert (verdicts == truth).mean() >= 0.995


def test_the_oracle_reads_back_the_scene_and_needs_every_pixel_block():
    rng = np.random.default_rng(1)
    scenes = [sample_scene(sample_meaning(SUBTASKS[i % 9], rng), rng) for i in range(300)]
    pictures = render(scenes, rng)
    assert [sorted(scene) for scene in read_scenes(pictures)] == [sorted(scene) for scene in scenes]
    mirrored = pictures[:, ::-1]
    assert [sorted(s) for s in read_scenes(mirrored)] != [sorted(scene) for scene in scenes]


def test_the_oracle_refuses_other_pictures():
    with pytest.raises(ValueError, match="external judge"):
        judge(np.zeros((1, 384, 384, 3), dtype=np.uint8), ["a circle"])


def test_train_and_evaluation_prompts_are_disjoint_in_meaning():
    train, evaluation = prompt_table(160, False, 0), prompt_table(40, True, 0)
    probe, pictures = probe_set(10, 0)
    check_disjoint(train, evaluation, probe)
    assert not {canonical(parse(p)) for p in train["prompt"]} & {canonical(parse(p)) for p in evaluation["prompt"]}
    assert train["prompt"].is_unique and evaluation["prompt"].is_unique
    assert (evaluation.groupby("subtask").size() == 40).all() and set(evaluation["subtask"]) == set(SUBTASKS)
    assert all(set(group["subtask"]) == set(STRATA[name]) for name, group in train.groupby("stratum"))
    assert pictures.shape == (len(probe), IMAGE_SIZE, IMAGE_SIZE, 3)
    assert (judge(pictures, probe["prompt"].tolist()) == (probe["label"] == 1)).mean() >= 0.99


def test_a_leak_is_refused():
    train, evaluation = prompt_table(5, False, 0), prompt_table(5, True, 0)
    leaked = train.assign(prompt=["a red circle and a blue square", *train["prompt"][1:]])
    evaluation = evaluation.assign(prompt=["a blue square and a red circle", *evaluation["prompt"][1:]])
    with pytest.raises(ValueError, match="stands among the training prompts"):
        check_disjoint(leaked, evaluation, evaluation)


def test_the_split_holds_out_a_fifth():
    rng = np.random.default_rng(2)
    meanings = {canonical(m): m for m in (sample_meaning("complex", rng) for _ in range(4000))}
    assert 0.17 < np.mean([is_held_out(meaning) for meaning in meanings.values()]) < 0.23


def test_asking_for_more_prompts_than_there_are():
    with pytest.raises(ValueError, match="evaluation_prompts_per_subtask"):
        distinct_prompts("two_objects", 500, True, np.random.default_rng(0))


def test_unspecified_attributes_match_anything():
    assert holds(Meaning((Spec("square"),)), SCENE) and not holds(Meaning((Spec("square", texture="solid"),)), SCENE)
