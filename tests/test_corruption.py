"""Corrupted supervision against hand-worked frames, enumeration and properties over invented candidates."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from test_supervision import LOGITS, frame, random_candidates, station

from replication.corruption import CORRUPTIONS, corrupt_verdicts, named_rng, other_prompts, shuffle_prompts
from replication.supervision import quality, select

STRENGTHS = {"flipped": 0.25, "lenient": 1.5}
PLAIN = {"method": "sft", "rule": "contrast", "images_per_prompt": 1}


def corrupted(candidates, corruption, strength=None, seed=0):
    return corrupt_verdicts(candidates, corruption, strength, named_rng(seed, corruption))


def many(prompts=400, accuracy=0.85):
    """Invented candidates, four of each prompt, whose verdicts are right with probability `accuracy`."""
    rng = np.random.default_rng(3)
    candidates = frame({f"prompt {index}": rng.normal(0.4, 2, size=4) for index in range(prompts)})
    return candidates.assign(
        truth=candidates["verdict"].where(rng.random(len(candidates)) < accuracy, 1 - candidates["verdict"])
    )


def chosen_precision(candidates, rule="contrast"):
    """Right and all images among the chosen ones."""
    samples = select(candidates, "sft", rule, 1)
    return int(candidates["truth"].loc[samples["chosen"]].sum()), len(samples)


def test_hand_worked_corruptions():
    mixed = frame({"mixed": LOGITS["mixed"]}, truth=[0, 0, 1, 1])  # logits 2, -1, 3, -4
    shown = {
        name: corrupted(mixed, name, STRENGTHS.get(name) if name != "flipped" else 1.0)[["verdict", "alignment_logit"]]
        for name in CORRUPTIONS
    }
    assert shown["none"]["verdict"].tolist() == shown["shuffled_prompts"]["verdict"].tolist() == [1, 0, 1, 0]
    for turned in ("swapped", "flipped"):
        assert shown[turned]["verdict"].tolist() == [0, 1, 0, 1]
        assert shown[turned]["alignment_logit"].tolist() == [-2, 1, -3, 4]
    assert shown["accept_everything"].to_numpy().tolist() == [[1, 0]] * 4
    assert shown["lenient"]["verdict"].tolist() == [1, 1, 1, 0]
    assert shown["lenient"]["alignment_logit"].tolist() == [3.5, 0.5, 4.5, -2.5]
    assert shown["oracle"]["verdict"].tolist() == [0, 0, 1, 1]
    assert select(corrupted(mixed, "oracle"), "dpo", "contrast", 1)[["chosen", "rejected"]].to_numpy().tolist() == [
        [2, 1]
    ]


@given(random_candidates, st.sampled_from(CORRUPTIONS))
def test_nothing_but_verdicts_and_margins_changes(candidates, corruption):
    before = candidates.copy()
    after = corrupted(candidates, corruption, STRENGTHS.get(corruption))
    pd.testing.assert_frame_equal(candidates, before)
    untouched = [column for column in candidates if column not in ("verdict", "alignment_logit")]
    pd.testing.assert_frame_equal(after[untouched], before[untouched])
    assert after["verdict"].isin([0, 1]).all()


@given(random_candidates, st.integers(0, 99))
def test_flips_lie_between_none_and_swapped(candidates, seed):
    swapped = corrupted(candidates, "swapped")
    pd.testing.assert_frame_equal(corrupted(swapped, "swapped"), candidates)
    pd.testing.assert_frame_equal(corrupted(candidates, "flipped", 0.0, seed), candidates)
    pd.testing.assert_frame_equal(corrupted(candidates, "flipped", 1.0, seed), swapped)
    turned = [corrupted(candidates, "flipped", p, seed)["verdict"] != candidates["verdict"] for p in (0.1, 0.25, 0.5)]
    assert (turned[0] <= turned[1]).all() and (turned[1] <= turned[2]).all()  # a stronger dial adds flips


@given(random_candidates, st.floats(0, 5), st.floats(0, 5))
def test_a_more_lenient_judge_accepts_more(candidates, first, second):
    low, high = (corrupted(candidates, "lenient", strength) for strength in sorted((first, second)))
    assert (candidates["verdict"] <= low["verdict"]).all() and (low["verdict"] <= high["verdict"]).all()


@pytest.mark.parametrize("strength", [0.1, 0.25, 0.5])
@pytest.mark.parametrize("seed", [0, 1])
def test_flips_have_the_stated_strength(strength, seed):
    own = many()
    noisy = corrupted(own, "flipped", strength, seed)
    turned = noisy["verdict"] != own["verdict"]
    assert binomtest(int(turned.sum()), len(own), strength).pvalue > 1e-3
    assert (noisy["alignment_logit"] == own["alignment_logit"].where(~turned, -own["alignment_logit"])).all()
    # Precision of what is accepted falls from that of accepted candidates towards that of rejected ones.
    yes, no = own[own["verdict"] == 1], own[own["verdict"] == 0]
    right = (1 - strength) * (yes["truth"] == 1).sum() + strength * (no["truth"] == 1).sum()
    expected = right / ((1 - strength) * len(yes) + strength * len(no))
    assert binomtest(*chosen_precision(noisy, "accept_all"), expected).pvalue > 1e-3


@pytest.mark.parametrize("strength", [0.1, 0.25, 0.5])
def test_flips_lower_the_precision_of_contrast_as_enumeration_says(strength):
    """Every pattern of flips of a prompt's four candidates, by hand: which image it would choose, and whether it is right."""
    own, mean, variance = many(), 0.0, 0.0
    for _, rows in own.groupby("prompt_id"):
        chance = 0.0
        margins, truth = rows["alignment_logit"].tolist(), rows["truth"].tolist()
        for flips in product((0, 1), repeat=4):
            shown = [-margin if flip else margin for flip, margin in zip(flips, margins, strict=True)]
            if min(shown) <= 0 < max(shown):
                probability = strength ** sum(flips) * (1 - strength) ** (4 - sum(flips))
                chance += probability * truth[shown.index(max(shown))]
        mean, variance = mean + chance, variance + chance * (1 - chance)
    right, _ = chosen_precision(corrupted(own, "flipped", strength))
    assert abs(right - mean) < 3.3 * variance**0.5  # p > 0.001


def test_precision_is_ordered_by_the_quality_of_the_judge():
    own = many()
    arms = [("oracle", None), ("none", None), ("flipped", 0.25), ("flipped", 0.5), ("swapped", None)]
    precisions = [np.divide(*chosen_precision(corrupted(own, *arm))) for arm in arms]
    assert precisions[0] == 1 and precisions == sorted(precisions, reverse=True) and precisions[-1] < 0.3
    right, number = chosen_precision(corrupted(own, "accept_everything"), "accept_all")
    assert (right, number) == (own["truth"].sum(), len(own))


def test_who_accepts_everything_gives_no_preference():
    everything = corrupted(many(), "accept_everything")
    for method in ("sft", "dpo"):
        with pytest.raises(ValueError, match="selected nothing"):
            select(everything, method, "contrast", 1)


@given(st.lists(st.sampled_from("abcdef"), min_size=2, max_size=40), st.integers(0, 99))
def test_no_row_keeps_its_prompt(texts, seed):
    prompts = pd.Series(texts)
    if 2 * prompts.value_counts().max() > len(prompts):
        with pytest.raises(ValueError, match="use more prompts"):
            other_prompts(prompts, named_rng(seed, "any"))
        return
    positions = other_prompts(prompts, named_rng(seed, "any"))
    assert sorted(positions) == list(range(len(prompts)))
    assert (prompts.to_numpy()[positions] != prompts.to_numpy()).all()


def test_shuffled_prompts_move_with_what_belongs_to_them():
    own = many(30)
    samples = select(own, "dpo", "contrast", 1)
    shuffled = shuffle_prompts(samples, named_rng(0, "shuffled_prompts"))
    assert list(shuffled) == list(samples) and (shuffled.dtypes == samples.dtypes).all()
    assert (shuffled["prompt"] != samples["prompt"]).all()
    assert shuffled[["chosen", "rejected"]].equals(samples[["chosen", "rejected"]])
    known = own.drop_duplicates("prompt_id").set_index("prompt_id")
    assert (known["prompt"].loc[shuffled["prompt_id"]].to_numpy() == shuffled["prompt"].to_numpy()).all()
    assert (known["subtask"].loc[shuffled["prompt_id"]].to_numpy() == shuffled["subtask"].to_numpy()).all()
    report = quality(own, shuffled).set_index("metric")
    assert report.loc[["precision_chosen", "precision_rejected"], "n"].tolist() == [0, 0]
    assert report["value"].isna().sum() == 2  # the truth of new pairs is not in the frame


@pytest.mark.parametrize(
    ("corruption", "strength", "sentence"),
    [
        ("broken", None, "There is no corruption 'broken'"),
        ("swapped", 0.1, "takes no strength"),
        ("flipped", None, "needs a supervision.corruption_strength from 0 to 1, not None"),
        ("flipped", 1.1, "from 0 to 1, not 1.1"),
        ("lenient", -1, "from 0 to inf, not -1"),
    ],
)
def test_a_wrong_dial_is_one_sentence(corruption, strength, sentence):
    with pytest.raises(ValueError, match=sentence):
        corrupted(frame(LOGITS), corruption, strength)


def test_the_station_without_corruption_writes_the_bytes_of_the_plain_selection(tmp_path):
    candidates = many(20)
    assert station(tmp_path, candidates, "plain.csv", **PLAIN).returncode == 0
    expected = select(candidates, **PLAIN).drop(columns="prompt_id").to_csv(index=False)
    assert (tmp_path / "plain.csv").read_text() == expected


def test_the_station_draws_by_the_run_alone(tmp_path):
    candidates = many(20)
    for name, seed in (("first.csv", 0), ("again.csv", 0), ("other.csv", 1)):
        flipped = {"corruption": "flipped", "corruption_strength": 0.5}
        assert station(tmp_path, candidates, name, seed, **PLAIN, **flipped).returncode == 0
    first, again, other = ((tmp_path / f"{name}.csv").read_text() for name in ("first", "again", "other"))
    assert first == again != other
    expected = select(corrupted(candidates, "flipped", 0.5), **PLAIN)
    assert pd.read_csv(tmp_path / "first.csv")["chosen"].tolist() == expected["chosen"].tolist()
    done = station(tmp_path, candidates, "shuffled.csv", **PLAIN, corruption="shuffled_prompts")
    assert done.returncode == 0, done.stderr
    plain, shuffled = select(candidates, **PLAIN), pd.read_csv(tmp_path / "shuffled.csv")
    assert shuffled["chosen"].tolist() == plain["chosen"].tolist()
    assert (shuffled["prompt"].to_numpy() != plain["prompt"].to_numpy()).all()
