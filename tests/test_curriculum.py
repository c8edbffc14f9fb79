"""Curriculum replay against a hand-worked pool, against Algorithm 2 written as loops, and the bookkeeping of pool and controls."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from replication.config import load_stage
from replication.curriculum import (
    algorithm_1,
    first_pool,
    newly_accepted,
    next_set,
    prompts_to_draw,
    still_discarded,
    with_codes,
)
from replication.phases import check_settings, is_current, phase_epochs
from replication.scenes import STRATUM_OF, SUBTASKS

SFT = {"experiment": "c_sft", "method": "sft", "rule": "contrast", "images_per_prompt": 1, "adds": "replay"}
SFT |= {"random_prompts": 3, "candidates_per_prompt": 4}


def prompt_table(number):
    subtasks = [SUBTASKS[index % 9] for index in range(number)]
    names = [f"prompt {index}" for index in range(number)]
    table = pd.DataFrame({"prompt_id": range(number), "prompt": names, "subtask": subtasks})
    return table.assign(stratum=table["subtask"].map(STRATUM_OF))


def drawn_images(logits, prompts, phase):
    """Candidates of `prompts`, which have logits[prompt_id] each, and codes that tell the phase, prompt and candidate."""
    rows = [
        {**prompt, "candidate": number, "alignment_logit": logit, "verdict": int(logit > 0), "truth": int(logit > 1)}
        for prompt in prompts.to_dict("records")
        for number, logit in enumerate(logits[prompt["prompt_id"]])
    ]
    columns = [*prompts, "candidate", "alignment_logit", "verdict", "truth"]
    table = pd.DataFrame(rows, columns=columns)
    return table, np.array([(phase, row["prompt_id"], row["candidate"]) for row in rows], np.int16).reshape(-1, 3)


def train_in_phases(rounds, config, rng=None):
    """All states (training set, codes, pool) of a run whose phase k draws the logits rounds[k - 1][prompt_id]."""
    prompts = prompt_table(len(rounds[0]))
    drawn, new_codes = drawn_images(rounds[0], prompts, 1)
    pool = first_pool(drawn, prompts)
    states = [(*with_codes(None, new_codes[:0], algorithm_1(drawn, config, 1), new_codes, 1), pool)]
    for phase, logits in enumerate(rounds[1:], 2):
        training_set, codes, pool = states[-1]
        drawn, new_codes = drawn_images(logits, prompts_to_draw(pool, prompts, config["adds"], 3, rng), phase)
        samples, pool = next_set(config, phase, training_set, pool, drawn, None, rng)
        states.append((*with_codes(training_set, codes, samples, new_codes, phase), pool))
    return states


def images_of(training_set, codes):
    """The training set as the images that it refers to: a list of ((phase, prompt, candidate), ...) per sample."""
    columns = [column for column in ("chosen", "rejected") if column in training_set]
    return [tuple(tuple(codes[row].tolist()) for row in sample) for sample in training_set[columns].to_numpy(int)]


def algorithm_2(rounds, method, rule, images_per_prompt):
    """The paper's Algorithm 2 after Algorithm 1, as loops over plain lists: samples and what is left of the pool."""
    samples, pool = [], []
    for phase, images in enumerate(rounds, 1):
        for prompt, logits in enumerate(images):
            if phase > 1 and prompt not in pool:
                continue
            accepted = sorted((i for i, logit in enumerate(logits) if logit > 0), key=lambda i: -logits[i])
            rejected = sorted((i for i, logit in enumerate(logits) if logit <= 0), key=lambda i: logits[i])
            if method == "dpo":
                picked = [(accepted[0], rejected[0])] if accepted and rejected else []
            elif rule == "accept_all":
                picked = [(i,) for i in accepted]
            else:  # earlier rounds of a replayed prompt were rejected, so it needs no rejection among the new images
                picked = [(i,) for i in accepted[:images_per_prompt]] if rejected or phase > 1 else []
            samples += [tuple((phase, prompt, i) for i in images) for images in picked]
            if phase == 1 and not accepted:
                pool.append(prompt)
            if phase > 1 and picked:
                pool.remove(prompt)
    return samples, pool


some_rounds = st.integers(1, 6).flatmap(
    lambda prompts: st.lists(
        st.lists(
            st.lists(st.floats(-3, 1).map(lambda x: round(x, 1)), min_size=3, max_size=3),
            min_size=prompts,
            max_size=prompts,
        ),
        min_size=2,
        max_size=4,
    )
)
rules = st.sampled_from(
    [("sft", "contrast", 1), ("sft", "contrast", 2), ("sft", "accept_all", 1), ("dpo", "contrast", 1)]
)


def test_hand_worked_replay():
    rounds = [
        [[2, -1, 3], [-1, -2, -3], [-4, -1, -2], [1, 2, 3], [-1, -1, -1]],
        [[9, 9, 9], [-5, 1, 0.5], [-1, -1, -2], [9, 9, 9], [3, 4, 2]],
        [[9, 9, 9], [9, 9, 9], [-3, -1, 2], [9, 9, 9], [9, 9, 9]],
    ]
    states = train_in_phases(rounds, SFT)
    assert [still_discarded(pool)["prompt_id"].tolist() for _, _, pool in states] == [[1, 2, 4], [2], []]
    assert states[2][2]["unlocked"].tolist() == [2, 3, 2]
    assert images_of(*states[0][:2]) == [((1, 0, 2),)]  # all images of prompt 3 were accepted: no contrast
    # all of prompt 4's new images are accepted, but its earlier ones were not
    assert images_of(*states[1][:2]) == [((1, 0, 2),), ((2, 1, 1),), ((2, 4, 1),)]
    assert images_of(*states[2][:2]) == [((1, 0, 2),), ((2, 1, 1),), ((2, 4, 1),), ((3, 2, 2),)]
    assert states[2][0]["phase"].tolist() == [1, 2, 2, 3]

    pairs = train_in_phases(rounds, {**SFT, "method": "dpo"})
    assert images_of(*pairs[1][:2]) == [((1, 0, 2), (1, 0, 1)), ((2, 1, 1), (2, 1, 0))]
    assert still_discarded(pairs[1][2])["prompt_id"].tolist() == [2, 4]  # nothing to reject among prompt 4's new images
    assert images_of(*pairs[2][:2])[2:] == [((3, 2, 2), (3, 2, 0))]


@given(some_rounds, rules)
def test_replay_is_algorithm_2(rounds, selection):
    method, rule, images_per_prompt = selection
    samples, pool = algorithm_2(rounds, method, rule, images_per_prompt)
    assume(any(phase == 1 for (phase, _, _), *_ in samples))
    config = {**SFT, "method": method, "rule": rule, "images_per_prompt": images_per_prompt}
    training_set, codes, left = train_in_phases(rounds, config)[-1]
    assert sorted(images_of(training_set, codes)) == sorted(samples)
    assert still_discarded(left)["prompt_id"].tolist() == pool


@given(some_rounds, rules)
def test_what_every_replay_obeys(rounds, selection):
    method, rule, images_per_prompt = selection
    assume(any(phase == 1 for (phase, _, _), *_ in algorithm_2(rounds, *selection)[0]))
    states = train_in_phases(rounds, {**SFT, "method": method, "rule": rule, "images_per_prompt": images_per_prompt})
    for phase, (training_set, codes, pool) in enumerate(states, 1):
        discarded = set(still_discarded(pool)["prompt_id"])
        assert not discarded & set(training_set["prompt_id"])
        for (_, prompt, _), *rest in images_of(training_set, codes):
            assert all(other[1] == prompt for other in rest)
        assert [sample[0][1] for sample in images_of(training_set, codes)] == training_set["prompt_id"].tolist()
        if phase > 1:
            before, earlier_codes, earlier_pool = states[phase - 2]
            assert discarded <= set(still_discarded(earlier_pool)["prompt_id"])
            pd.testing.assert_frame_equal(training_set.iloc[: len(before)], before)
            np.testing.assert_array_equal(codes[: len(earlier_codes)], earlier_codes)
            new = set(training_set.loc[training_set["phase"] == phase, "prompt_id"])
            assert set(pool.loc[pool["unlocked"] == phase, "prompt_id"]) == new
            assert len(codes) == len(training_set) * (2 if method == "dpo" else 1)


@given(some_rounds)
def test_truth_never_enters_a_replay(rounds):
    drawn, _ = drawn_images(rounds[0], prompt_table(len(rounds[0])), 2)
    samples = newly_accepted(drawn, "sft", "contrast", 1)
    pd.testing.assert_frame_equal(samples, newly_accepted(drawn.assign(truth=1 - drawn["truth"]), "sft", "contrast", 1))


def some_state(config=SFT, prompts=40, seed=0):
    rng = np.random.default_rng(seed)
    return train_in_phases([rng.normal(-0.3, 1, (prompts, 4)).tolist()], config)[0], prompt_table(prompts)


def test_prompts_of_the_control_are_random_and_none_is_in_the_pool():
    (_, _, pool), prompts = some_state()
    discarded = still_discarded(pool)
    assert 3 < len(discarded) < 10
    drawn = [prompts_to_draw(pool, prompts, "random", 3, np.random.default_rng(seed)) for seed in (0, 0, 1)]
    for table in drawn:
        assert len(table) == 3 * len(discarded) == table["prompt_id"].nunique()
        assert not set(table["prompt_id"]) & set(discarded["prompt_id"])
    pd.testing.assert_frame_equal(drawn[0], drawn[1])
    assert set(drawn[0]["prompt_id"]) != set(drawn[2]["prompt_id"])
    pd.testing.assert_frame_equal(prompts_to_draw(pool, prompts, "replay", 3, None), discarded)
    assert prompts_to_draw(pool, prompts, "repeat", 3, None).empty
    assert len(prompts_to_draw(pool, prompts, "random", 30, np.random.default_rng(0))) == 40 - len(discarded)


def test_controls_add_as_many_samples_and_leave_the_pool_alone():
    (before, codes, pool), prompts = some_state()
    rng = np.random.default_rng(0)
    drawn, new_codes = drawn_images(np.full((40, 2), 1.0), prompts_to_draw(pool, prompts, "random", 3, rng), 2)
    samples, after = next_set({**SFT, "adds": "random"}, 2, before, pool, drawn, 4, rng)
    union, _ = with_codes(before, codes, samples, new_codes, 2)
    assert len(union) == len(before) + 4 and samples["prompt_id"].nunique() == 4
    pd.testing.assert_frame_equal(after, pool)
    with pytest.raises(ValueError, match=f"needs {len(drawn)} samples, but the random prompts gave {len(drawn) // 2};"):
        next_set({**SFT, "adds": "random"}, 2, before, pool, drawn, len(drawn), rng)

    again, after = next_set({**SFT, "adds": "repeat"}, 2, before, pool, drawn.iloc[:0], 4, rng)
    union, union_codes = with_codes(before, codes, again, codes, 2)
    assert len(union) == len(before) + 4
    assert set(images_of(union, union_codes)) == set(images_of(before, codes))
    assert len(set(images_of(union.iloc[-4:], union_codes))) == 4
    pd.testing.assert_frame_equal(after, pool)


def test_stages_add_one_stratum_after_the_other_and_end_with_the_whole_set():
    logits = np.random.default_rng(0).normal(0, 1, (36, 4)).tolist()
    prompts = prompt_table(36)
    drawn, _ = drawn_images(logits, prompts, 1)
    staged = {**SFT, "adds": "stages"}
    training_set, pool = algorithm_1(drawn, staged, 1), first_pool(drawn, prompts)
    strata = [set(training_set["subtask"].map(STRATUM_OF))]
    for phase in (2, 3):
        new, _ = next_set(staged, phase, training_set, pool, drawn, None, None)
        strata.append(set(new["subtask"].map(STRATUM_OF)))
        training_set = pd.concat([training_set, new])
    assert strata == [{"easy"}, {"medium"}, {"hard"}]
    assert sorted(training_set["chosen"]) == sorted(algorithm_1(drawn, SFT, 1)["chosen"])


@pytest.mark.parametrize(
    ("replay_at", "epochs", "phases"),
    [
        ([0.5], 20, [(0, 10), (10, 20)]),  # paper section 8
        ([0.2], 20, [(0, 4), (4, 20)]),
        ([0.333], 30, [(0, 10), (10, 30)]),
        ([0.25, 0.5, 0.75], 10, [(0, 2), (2, 5), (5, 8), (8, 10)]),
        ("every", 4, [(0, 1), (1, 2), (2, 3), (3, 4)]),
    ],
)
def test_phases_cover_all_epochs(replay_at, epochs, phases):
    assert phase_epochs(replay_at, epochs) == phases


@pytest.mark.parametrize(
    ("replay_at", "epochs"), [([0.5], 1), ([0.25, 0.5], 2), ([], 10), ("every", 1), ([1.0], 4), ([0.8, 0.2], 10)]
)
def test_a_schedule_that_does_not_fit_is_one_sentence(replay_at, epochs):
    with pytest.raises(SystemExit, match=f"does not cut {epochs} epochs into phases"):
        phase_epochs(replay_at, epochs)


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("supervision", "corruption", "swapped"),
        ("supervision", "threshold", 0.5),
        ("origin", "starts_from", "sft"),
        ("candidates", "temperature", 0.8),
        ("post_training", "orthogonal_to", "verdicts"),
    ],
)
def test_what_phases_do_not_read_is_one_sentence(section, key, value):
    stations = ("supervision", "origin", "candidates", "post_training")
    read = {station: load_stage(station, "full", experiment="c_sft_n_2") for station in stations}
    shared = load_stage("candidates", "full")

    def check():
        own = (read["supervision"], read["origin"], read["candidates"])
        check_settings("c_own", *own, shared, read["post_training"]["orthogonal_to"])

    check()
    read[section] = {**read[section], key: value}
    with pytest.raises(SystemExit, match=rf"^c_own: a curriculum \(c_\*\) does not read {section}\.{key}; leave"):
        check()


def test_an_unknown_model_of_a_role_is_one_sentence():
    assert is_current({"images_from": "current"}, "images_from")
    assert not is_current({"images_from": "pretrained"}, "images_from")
    with pytest.raises(SystemExit, match="schedule.images_from is 'curent'; choose current or pretrained"):
        is_current({"images_from": "curent"}, "images_from")


@pytest.fixture
def station(tmp_path):
    """Runs the station on files; the run, its phase and options in, the finished process out."""
    prompt_table(40).to_csv(tmp_path / "train.csv", index=False)

    def run(name, phase, config, **folders):
        command = [sys.executable, "-m", "replication.curriculum", "--seed", "7", "--phase", str(phase)]
        command += [
            "--config",
            json.dumps({**SFT, "experiment": name, **config}),
            "--prompts",
            str(tmp_path / "train.csv"),
        ]
        for option, folder in folders.items():
            command += [f"--{option}", str(tmp_path / folder)]
        return subprocess.run(
            [*command, "--output", str(tmp_path / name / str(phase))], check=False, capture_output=True, text=True
        )

    return run


def save_images(folder, drawn, codes):
    folder.mkdir(parents=True)
    drawn.to_csv(folder / "candidates.csv", index=False)
    np.save(folder / "codes.npy", codes)


def test_station_replays_and_its_controls_match(station, tmp_path):
    (_, _, pool), prompts = some_state()
    logits = np.random.default_rng(0).normal(-0.3, 1, (40, 4)).tolist()
    save_images(tmp_path / "first", *drawn_images(logits, prompts, 1))
    for name, config in (("c_sft", {}), ("random", {"adds": "random"}), ("steps", {"adds": "repeat"})):
        like = {} if name == "c_sft" else {"like": "c_sft/1"}
        done = station(name, 1, config, candidates="first", **like)
        assert done.returncode == 0, done.stderr
    for name in ("c_sft", "random"):
        replayed = pd.read_csv(tmp_path / name / "1/next_prompts.csv")
        save_images(tmp_path / name / "new", *drawn_images([[-1, 2, -2, 1]] * 40, replayed, 2))
    steps = [("c_sft", {}, {"candidates": "c_sft/new"})]
    steps += [("random", {"adds": "random"}, {"candidates": "random/new", "like": "c_sft/2"})]
    steps += [("steps", {"adds": "repeat"}, {"like": "c_sft/2"})]
    for name, config, folders in steps:
        done = station(name, 2, config, previous=f"{name}/1", **folders)
        assert done.returncode == 0, done.stderr
    counts = {name: pd.read_csv(tmp_path / name / "2/phases.csv") for name in ("c_sft", "random", "steps")}
    for name, table in counts.items():
        assert table["experiment"].tolist() == [name] * 2 and table["seed"].tolist() == [7, 7]
        assert table["samples_added"].tolist() == counts["c_sft"]["samples_added"].tolist()
        training_set = pd.read_csv(tmp_path / name / "2/training_set.csv")
        assert len(training_set) == table["samples"].iloc[1] == table["samples_added"].sum()
        assert len(np.load(tmp_path / name / "2/codes.npy")) == len(training_set)
    assert counts["c_sft"].iloc[1][["prompts_drawn", "prompts_unlocked", "prompts_discarded"]].tolist() == [
        len(pool)
    ] * 2 + [0]
    assert counts["c_sft"].iloc[1][["images_drawn", "images_accepted", "images_right"]].tolist() == [
        4 * len(pool),
        2 * len(pool),
        len(pool),
    ]
    assert counts["random"]["prompts_discarded"].tolist() == [len(pool)] * 2

    # an empty pool: nothing is drawn and nothing joins
    emptied = pd.read_csv(tmp_path / "c_sft/2/next_prompts.csv")
    assert emptied.empty
    save_images(tmp_path / "none", pd.read_csv(tmp_path / "first/candidates.csv").iloc[:0], np.empty((0, 0), np.int16))
    done = station("c_sft", 3, {}, candidates="none", previous="c_sft/2")
    assert done.returncode == 0, done.stderr
    for name in ("training_set.csv", "codes.npy", "discard_pool.csv"):
        assert (tmp_path / "c_sft/3" / name).read_bytes() == (tmp_path / "c_sft/2" / name).read_bytes()
    assert pd.read_csv(tmp_path / "c_sft/3/phases.csv")["samples_added"].iloc[2] == 0


def test_with_fewer_candidates_the_pool_is_larger(station, tmp_path):
    """Only the first two of each prompt's four count, of old images and of new ones."""
    prompts, logits = prompt_table(40), np.random.default_rng(0).normal(-0.3, 1, (40, 4))
    save_images(tmp_path / "first", *drawn_images(logits.tolist(), prompts, 1))
    assert station("c_sft", 1, {"candidates_per_prompt": 2}, candidates="first").returncode == 0
    pool = pd.read_csv(tmp_path / "c_sft/1/discard_pool.csv")
    assert pool["prompt_id"].tolist() == np.flatnonzero((logits[:, :2] < 0).all(axis=1)).tolist()
    replayed = pd.read_csv(tmp_path / "c_sft/1/next_prompts.csv")
    new = [[-1, -2, 3, 3]] * 10 + [[-1, 2, 3, 3]] * 30
    save_images(tmp_path / "new", *drawn_images(new, replayed, 2))
    station("c_sft", 2, {"candidates_per_prompt": 2}, previous="c_sft/1", candidates="new")
    counts = pd.read_csv(tmp_path / "c_sft/2/phases.csv").iloc[1]
    unlocked = (replayed["prompt_id"] >= 10).sum()
    assert counts[["samples_added", "prompts_unlocked", "images_drawn"]].tolist() == [
        unlocked,
        unlocked,
        2 * len(replayed),
    ]


def test_station_fails_with_one_sentence(station, tmp_path):
    prompts = prompt_table(40)
    save_images(tmp_path / "rejected", *drawn_images([[-1, -2]] * 40, prompts, 1))
    done = station("c_sft", 1, {"candidates_per_prompt": 2}, candidates="rejected")
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "accepted 0.0% of its 80" in done.stderr
    done = station("c_sft", 1, {"candidates_per_prompt": 3}, candidates="rejected")
    assert done.returncode == 1 and done.stderr.startswith("supervision.candidates_per_prompt is 3, but 2 candidates")
    done = station("c_sft", 1, {"adds": "reply"}, candidates="rejected")
    assert done.returncode == 1 and done.stderr == (
        "phases.adds is 'reply'; choose one of: replay, random, repeat, stages.\n"
    )
