"""Selection rules against hand-worked sets and properties over invented candidates."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2_contingency, chisquare

from replication.supervision import discard_pool, quality, select, usable

LOGITS = {  # prompt: alignment logits of its candidates; accepted above 0
    "mixed": [2.0, -1.0, 3.0, -4.0],
    "all accepted": [1.0, 2.0, 3.0, 0.5],
    "all rejected": [-1.0, -2.0, -3.0, -0.5],
    "ties": [1.0, 1.0, -2.0, -2.0],
}


def frame(logits_of_prompts, truth=None):
    rows = [
        {
            "prompt_id": f"p{prompt_id}",
            "prompt": prompt,
            "subtask": ("shape", "spatial")[prompt_id % 2],
            "candidate": candidate,
            "alignment_logit": logit,
            "verdict": int(logit > 0),
        }
        for prompt_id, (prompt, logits) in enumerate(logits_of_prompts.items())
        for candidate, logit in enumerate(logits)
    ]
    table = pd.DataFrame(rows)
    return table.assign(truth=table["verdict"] if truth is None else truth)


random_candidates = st.lists(
    st.lists(st.floats(-3, 3).map(lambda x: round(x, 1)), min_size=4, max_size=4), min_size=1, max_size=12
).map(lambda rows: frame({f"prompt {index}": logits for index, logits in enumerate(rows)}))


def selected(candidates, method, rule, images_per_prompt=1):
    """The training set, or None where the rule has nothing to select."""
    try:
        return select(candidates, method, rule, images_per_prompt)
    except ValueError:
        return None


def test_hand_worked_sets():
    candidates = frame(LOGITS)
    assert select(candidates, "sft", "accept_all", 1)["chosen"].tolist() == [0, 2, 4, 5, 6, 7, 12, 13]
    assert select(candidates, "sft", "contrast", 1)["chosen"].tolist() == [2, 12]  # a tie goes to the lower number
    assert select(candidates, "sft", "contrast", 2)["chosen"].tolist() == [2, 0, 12, 13]
    for rule in ("accept_all", "contrast"):
        pairs = select(candidates, "dpo", rule, 1)
        assert pairs[["chosen", "rejected"]].to_numpy().tolist() == [[2, 3], [12, 14]]
        assert pairs["prompt"].tolist() == ["mixed", "ties"]
    assert discard_pool(candidates)["prompt"].tolist() == ["all rejected"]


def test_hand_worked_quality():
    truth = [1, 0, 0, 0, *[1] * 8, 1, 0, 0, 1]
    candidates = frame(LOGITS, truth)
    report = quality(candidates, select(candidates, "dpo", "contrast", 1)).set_index("metric")
    values = report["value"].to_dict()
    assert values["prompts"] == 4 and values["prompts_used"] == 2 and values["samples"] == 2
    assert values["discarded_prompts"] == 1 and values["all_accepted_prompts"] == 1
    assert values["accepted_share"] == 8 / 16
    assert values["precision_chosen"] == 0.5  # of rows 2 and 12, only the second is true
    assert values["precision_rejected"] == 1.0
    assert values["yield_shape"] == 0.5 and values["yield_spatial"] == 0.5 and report.loc["yield_shape", "n"] == 2


@settings(deadline=None)
@given(
    random_candidates,
    st.sampled_from(["sft", "dpo"]),
    st.sampled_from(["accept_all", "contrast", "best"]),
    st.integers(1, 3),
)
def test_what_every_training_set_obeys(candidates, method, rule, images_per_prompt):
    samples = selected(candidates, method, rule, images_per_prompt)
    if samples is None:
        return
    chosen = candidates.loc[samples["chosen"]]
    assert (chosen["verdict"] == 1).all()
    assert (chosen["prompt"].to_numpy() == samples["prompt"].to_numpy()).all()
    assert not samples["chosen"].duplicated().any()
    assert not set(samples["prompt_id"]) & set(discard_pool(candidates)["prompt_id"])
    if method == "dpo":
        rejected = candidates.loc[samples["rejected"]]
        assert (rejected["verdict"] == 0).all()
        assert (rejected["prompt"].to_numpy() == samples["prompt"].to_numpy()).all()
        by_prompt = candidates.groupby("prompt_id")["alignment_logit"]
        assert (chosen["alignment_logit"].to_numpy() == by_prompt.max()[samples["prompt_id"]].to_numpy()).all()
        assert (rejected["alignment_logit"].to_numpy() == by_prompt.min()[samples["prompt_id"]].to_numpy()).all()
    if method == "sft" and rule == "contrast":
        assert samples.groupby("prompt_id").size().max() <= images_per_prompt
    if method == "sft" and rule == "accept_all":
        assert len(samples) == candidates["verdict"].sum()


@settings(deadline=None)
@given(random_candidates, st.sampled_from(["sft", "dpo"]), st.sampled_from(["accept_all", "contrast"]))
def test_truth_never_enters_the_selection(candidates, method, rule):
    samples = selected(candidates, method, rule)
    inverted = candidates.assign(truth=1 - candidates["truth"])
    again = selected(inverted, method, rule)
    if samples is None:
        assert again is None
        return
    pd.testing.assert_frame_equal(samples, again)
    before, after = (quality(rows, samples).set_index("metric")["value"] for rows in (candidates, inverted))
    assert after["precision_chosen"] == pytest.approx(1 - before["precision_chosen"])
    precisions = [name for name in before.index if name.startswith("precision")]
    assert before.drop(precisions).equals(after.drop(precisions))


@settings(deadline=None)
@given(random_candidates, st.randoms(use_true_random=False))
def test_order_of_candidates_changes_nothing(candidates, random):
    order = list(range(len(candidates)))
    random.shuffle(order)
    shuffled = candidates.iloc[order].reset_index(drop=True)
    pairs, again = selected(candidates, "dpo", "contrast"), selected(shuffled, "dpo", "contrast")
    if pairs is not None:
        for column in ("chosen", "rejected"):
            first = candidates.loc[pairs[column], ["prompt_id", "candidate"]].sort_values("prompt_id")
            second = shuffled.loc[again[column], ["prompt_id", "candidate"]].sort_values("prompt_id")
            assert (first.to_numpy() == second.to_numpy()).all()


@pytest.mark.parametrize("prompts", [["all accepted"], ["all rejected"]])
def test_empty_selection_says_what_happened(prompts):
    candidates = frame({prompt: LOGITS[prompt] for prompt in prompts})
    share = "100.0%" if prompts == ["all accepted"] else "0.0%"
    with pytest.raises(ValueError, match=f"'contrast' selected nothing for dpo from 1 prompts: .*{share} of its 4"):
        select(candidates, "dpo", "contrast", 1)


def test_unknown_settings_are_named():
    with pytest.raises(ValueError, match="not 'sft' with 'better'"):
        select(frame(LOGITS), "sft", "better", 1)
    with pytest.raises(ValueError, match="images_per_prompt is 0"):
        select(frame(LOGITS), "sft", "contrast", 0)


def station(tmp_path, candidates, name="training_set.csv", seed=0, **config):
    folder = tmp_path / "candidates"
    folder.mkdir(exist_ok=True)
    candidates.to_csv(folder / "candidates.csv", index=False)
    config = {"corruption": "none", "corruption_strength": None, **config}
    config = {"candidates_per_prompt": int(candidates["candidate"].max()) + 1, "threshold": None, **config}
    command = [sys.executable, "-m", "replication.supervision", "--seed", str(seed), "--candidates", str(folder)]
    command += ["--config", json.dumps(config), "--output", str(tmp_path / name)]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def test_station_writes_three_tables(tmp_path):
    done = station(tmp_path, frame(LOGITS), method="dpo", rule="contrast", images_per_prompt=1)
    assert done.returncode == 0, done.stderr
    samples = pd.read_csv(tmp_path / "training_set.csv")
    assert list(samples.columns) == ["prompt", "subtask", "chosen", "rejected"]
    assert pd.read_csv(tmp_path / "discard_pool.csv")["prompt"].tolist() == ["all rejected"]
    assert list(pd.read_csv(tmp_path / "supervision.csv").columns) == ["metric", "value", "n"]


def test_station_fails_with_one_sentence_and_writes_nothing(tmp_path):
    rejected = frame({"all rejected": LOGITS["all rejected"]})
    done = station(tmp_path, rejected, method="sft", rule="accept_all", images_per_prompt=1)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "accepted 0.0% of its 4 candidates" in done.stderr
    assert not list(tmp_path.glob("*.csv"))


def test_ranking_is_by_margin_not_by_position():
    """A mutant that takes the first accepted candidate would pass the tie test, not this one."""
    rng = np.random.default_rng(0)
    candidates = frame({f"prompt {index}": rng.normal(size=10) for index in range(50)})
    chosen = select(candidates, "sft", "contrast", 1)["chosen"]
    first = candidates[candidates["verdict"] == 1].drop_duplicates("prompt_id").index
    assert set(first) != set(chosen)
    assert candidates.loc[chosen, "alignment_logit"].mean() > candidates.loc[first, "alignment_logit"].mean()


def test_only_the_first_candidates_count_and_rows_keep_their_numbers():
    first = usable(frame(LOGITS), 2, None)
    assert first.index.tolist() == [0, 1, 4, 5, 8, 9, 12, 13]
    assert select(first, "sft", "contrast", 1)["chosen"].tolist() == [0]  # the others agree on their first two
    assert select(usable(frame(LOGITS), 3, None), "dpo", "contrast", 1)[["chosen", "rejected"]].to_numpy().tolist() == [
        [2, 1],
        [12, 14],
    ]
    assert discard_pool(first)["prompt"].tolist() == ["all rejected"]
    pd.testing.assert_frame_equal(usable(frame(LOGITS), 4, None), frame(LOGITS))
    for number in (0, 5):
        with pytest.raises(ValueError, match=f"candidates_per_prompt is {number}, but 4 candidates were drawn"):
            usable(frame(LOGITS), number, None)


@pytest.mark.parametrize(
    ("threshold", "accepted", "contrast"),
    [
        (0.0, [0, 2, 4, 5, 6, 7, 12, 13], [2, 12]),
        (1.0, [0, 2, 5, 6], [2, 6]),  # a margin of 1 is not above 1
        (2.5, [2, 6], [2, 6]),
        (-1.5, [0, 1, 2, 4, 5, 6, 7, 8, 11, 12, 13], [2, 11, 12]),
    ],
)
def test_another_threshold_takes_the_verdicts_anew(threshold, accepted, contrast):
    candidates = usable(frame(LOGITS).assign(verdict=0), 4, threshold)
    assert candidates.index[candidates["verdict"] == 1].tolist() == accepted
    assert select(candidates, "sft", "contrast", 1)["chosen"].tolist() == contrast
    assert select(candidates, "sft", "accept_all", 1)["chosen"].tolist() == accepted


def test_rules_that_ask_for_less_than_a_disagreement():
    candidates = frame(LOGITS)
    assert select(candidates, "sft", "best", 1)["chosen"].tolist() == [2, 6, 12]
    assert select(candidates, "sft", "best", 2)["chosen"].tolist() == [2, 0, 6, 5, 12, 13]
    assert select(candidates, "sft", "top", 1)["chosen"].tolist() == [
        2,
        6,
        11,
        12,
    ]  # also of the prompt with none accepted


def test_a_random_candidate_is_any_accepted_one_alike():
    logits = [3.0, -1.0, 1.0, 2.0, -2.0, -3.0]
    candidates = frame({f"prompt {index}": logits for index in range(3000)})
    pairs = select(candidates, "dpo", "random", 1, np.random.default_rng(0))
    for column, places in (("chosen", [0, 2, 3]), ("rejected", [1, 4, 5])):
        counts = candidates.loc[pairs[column], "candidate"].value_counts()
        assert sorted(counts.index) == places
        assert chisquare(counts).pvalue > 0.001
    together = pd.crosstab(
        *(candidates.loc[pairs[column], "candidate"].to_numpy() for column in ("chosen", "rejected"))
    )
    assert chi2_contingency(together).pvalue > 0.001  # drawn independently
    three = select(candidates, "sft", "random", 2, np.random.default_rng(0))
    assert three.groupby("prompt_id").size().eq(2).all() and not three["chosen"].duplicated().any()


def test_station_uses_its_numbers_and_draws_by_the_seed(tmp_path):
    rng = np.random.default_rng(0)
    candidates = frame({f"prompt {index}": rng.normal(size=10) for index in range(40)})
    random = {"method": "sft", "rule": "random", "images_per_prompt": 1}
    for name, seed in (("first", 0), ("again", 0), ("other", 1)):
        assert station(tmp_path, candidates, f"{name}.csv", seed, **random).returncode == 0
    first, again, other = ((tmp_path / f"{name}.csv").read_bytes() for name in ("first", "again", "other"))
    assert first == again != other

    config = {**random, "rule": "contrast", "candidates_per_prompt": 3, "threshold": 0.5}
    assert station(tmp_path, candidates, "few.csv", **config).returncode == 0
    chosen = candidates.loc[pd.read_csv(tmp_path / "few.csv")["chosen"]]
    best = candidates[candidates["candidate"] < 3].groupby("prompt_id")["alignment_logit"].agg(["min", "max"])
    expected = best[(best["max"] > 0.5) & (best["min"] <= 0.5)]
    assert sorted(chosen["alignment_logit"]) == sorted(expected["max"]) and len(chosen) > 10
    accepted = pd.read_csv(tmp_path / "supervision.csv").set_index("metric").loc["accepted_share"]
    assert accepted["n"] == 40 * 3 and accepted["value"] < 0.5
    done = station(tmp_path, candidates, **{**config, "candidates_per_prompt": 11})
    assert done.returncode == 1 and "10 candidates were drawn for each prompt" in done.stderr
