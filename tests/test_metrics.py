"""The paper's quantities against hand-worked values and their own definitions."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_runs import run

from replication import metrics
from replication.scenes import STRATA, STRATUM_OF, SUBTASKS

TRUTH = [1, 1, 1, 0, 0, 0, 0, 1]
VERDICT = [1, 0, 1, 0, 0, 1, 0, 1]
AFTER = [1, 1, 0, 0, 0, 0, 1, 1]  # differs from VERDICT at 1 (right), 2 (wrong), 5 (right), 6 (wrong)

verdicts = st.lists(st.tuples(*[st.integers(0, 1)] * 3), min_size=1, max_size=60).map(lambda rows: np.array(rows).T)


def test_hand_worked_values():
    assert metrics.generation(TRUTH) == (4 / 8, 8)
    assert metrics.nonunified(VERDICT) == (4 / 8, 8)
    assert metrics.weak_generation(TRUTH, VERDICT) == (3 / 4, 4)  # rejected: 1, 3, 4, 6; truly wrong: 3, 4, 6
    assert metrics.false_positive_rate(TRUTH, VERDICT) == (1 / 4, 4)
    assert metrics.false_negative_rate(TRUTH, VERDICT) == (1 / 4, 4)
    assert metrics.balanced_accuracy(TRUTH, VERDICT) == (0.75, 8)
    assert metrics.win_rate(TRUTH, VERDICT, AFTER) == (2 / 4, 4)
    counts = metrics.triple_counts(TRUTH, VERDICT, AFTER)
    assert counts[0, 1, 0] == 1 and counts[0, 0, 1] == 1 and counts[1, 0, 1] == 1 and counts[1, 1, 1] == 2


def test_win_rate_of_the_papers_example_is_two_thirds():
    """Three disagreements, two of them agreeing with the judge (paper's project page)."""
    assert metrics.win_rate([0, 1, 0, 1], [1, 0, 0, 1], [0, 1, 1, 1]) == (pytest.approx(2 / 3), 3)


def test_no_disagreement_is_a_tie_and_other_empty_shares_are_undefined():
    assert metrics.win_rate([0, 1], [1, 1], [1, 1]) == (0.5, 0)
    for value, n in (metrics.weak_generation([0, 1], [1, 1]), metrics.balanced_accuracy([1, 1], [1, 0])):
        assert np.isnan(value) and n == 0


@given(verdicts)
def test_triples_determine_the_win_rate_and_the_false_positive_rates(rows):
    truth, before, after = rows
    counts = metrics.triple_counts(truth, before, after)
    assert sum(counts.values()) == len(truth)
    right, wrong = counts[0, 1, 0] + counts[1, 0, 1], counts[0, 0, 1] + counts[1, 1, 0]
    assert metrics.win_rate(truth, before, after) == (right / (right + wrong) if right + wrong else 0.5, right + wrong)
    negatives = sum(counts[0, b, a] for b in (0, 1) for a in (0, 1))
    if negatives:
        assert metrics.false_positive_rate(truth, after)[0] == (counts[0, 0, 1] + counts[0, 1, 1]) / negatives


@given(verdicts)
def test_nonunified_splits_into_weak_generation_and_false_negatives(rows):
    """P(reject) = P(reject, wrong) + P(reject, right), term by term from the other metrics."""
    truth, verdict, _ = rows
    (weak, rejected), (false_negative, positives) = (
        metrics.weak_generation(truth, verdict),
        metrics.false_negative_rate(truth, verdict),
    )
    terms = (weak * rejected if rejected else 0) + (false_negative * positives if positives else 0)
    assert metrics.nonunified(verdict)[0] * len(truth) == pytest.approx(terms)


@given(verdicts)
def test_inverted_verdicts_mirror_balanced_accuracy_and_win_rate(rows):
    truth, before, after = rows
    value, n = metrics.balanced_accuracy(truth, before)
    if n:
        assert metrics.balanced_accuracy(truth, 1 - before)[0] == pytest.approx(1 - value)
    assert metrics.win_rate(truth, after, before)[0] == pytest.approx(1 - metrics.win_rate(truth, before, after)[0])


def test_rogan_gladen_by_hand():
    """Of 100 images 50 are right: 45 of them and 10 of the others are accepted, 55 in all."""
    assert metrics.rogan_gladen(0.55, 0.2, 0.1) == pytest.approx(0.5)
    assert metrics.rogan_gladen(0.1, 0.2, 0.1) == pytest.approx(-1 / 7)  # not clipped
    corrected = metrics.rogan_gladen(np.array([0.4, 0.5, 0.9]), np.array([0.0, 0.5, 0.7]), 0.5)
    np.testing.assert_allclose(corrected, [0.8, np.nan, np.nan])  # a judge that only guesses, and one that is worse


@given(verdicts)
def test_correction_by_the_errors_on_the_very_images_gives_the_truth_back(rows):
    truth, judged, _ = rows
    (false_positives, negatives), (false_negatives, positives) = (
        metrics.false_positive_rate(truth, judged),
        metrics.false_negative_rate(truth, judged),
    )
    if negatives and positives and false_positives + false_negatives < 1:
        share = metrics.generation(judged)[0]
        corrected = metrics.rogan_gladen(share, false_positives, false_negatives)
        assert corrected == pytest.approx(metrics.generation(truth)[0])


def small_evaluation():
    images = pd.DataFrame(
        [
            {"subtask": subtask, "stratum": STRATUM_OF[subtask], "image": image, "truth": truth, "verdict": verdict}
            for index, subtask in enumerate(SUBTASKS)
            for image, truth, verdict in ((0, 1, 1), (1, 0, 0), (0, index % 2, index % 2))
        ]
    )
    probe = pd.DataFrame({"subtask": np.repeat(SUBTASKS, 2), "label": [0, 1] * 9, "verdict": [0, 1] * 8 + [1, 1]})
    old = pd.DataFrame({"subtask": ["single_object"] * 2, "truth": [0, 0], "before": [1, 1], "after": [0, 1]})
    return images, probe, old


IDENTITY = {"preset": "test", "experiment": "sft", "model": "embedded_janus-0", "method": "sft", "seed": 0}


def test_summary_rows_hold_the_contract():
    images, probe, old = small_evaluation()
    table = metrics.summarise(images, probe, old, IDENTITY)
    assert ",".join(table.columns) == "preset,experiment,model,method,seed,subtask,metric,value,n,judge"
    cell = table.set_index(["subtask", "metric"])
    assert set(table["subtask"]) == {*SUBTASKS, *STRATA, "overall"}
    assert not table.duplicated(["subtask", "metric"]).any()

    assert tuple(cell.loc[("single_object", "generation"), ["value", "n"]]) == (0.5, 2)  # image 0 only
    assert tuple(cell.loc[("single_object", "generation_n"), ["value", "n"]]) == (1 / 3, 3)
    assert cell.loc[("overall", "nonunified"), "value"] == pytest.approx(np.mean([0.5, 0] * 4 + [0.5]))
    assert cell.loc[("overall", "nonunified"), "n"] == 18
    assert tuple(cell.loc[("complex", "probe_false_positive_rate"), ["value", "n"]]) == (1.0, 1)
    assert tuple(cell.loc[("overall", "balanced_accuracy"), ["value", "n"]]) == (pytest.approx(8.5 / 9), 18)
    # 50 stands for "no disagreement" in the paper's Overall cells, too: Show-o + SFT prints 66.67 there
    assert tuple(cell.loc[("easy", "understanding_win_rate"), ["value", "n"]]) == (pytest.approx(2 / 3), 1)
    assert tuple(cell.loc[("easy", "triple_010"), ["value", "n"]]) == (1, 2)


def test_undefined_shares_are_kept_and_do_not_enter_means():
    images, probe, _ = small_evaluation()
    images["verdict"] = np.where(images["subtask"] == "shape", 1, images["verdict"])
    cell = metrics.summarise(images, probe, None, IDENTITY).set_index(["subtask", "metric"])
    value, n = cell.loc[("shape", "weak_generation_n"), ["value", "n"]]
    assert np.isnan(value) and n == 0
    assert cell.loc[("medium", "weak_generation_n"), "value"] == 1.0
    assert "understanding_win_rate" not in cell.index.get_level_values("metric")


def judged_by(images, probe, old, verdict=None):
    """The three frames with a second judge: its verdict on all, or the truth itself."""
    truths = images["truth"], probe["label"], old["truth"]
    return [
        frame.assign(judge_verdict=truth if verdict is None else verdict)
        for frame, truth in zip((images, probe, old), truths, strict=True)
    ]


def test_a_second_judge_by_hand():
    """single_object: images 0 have (truth, verdict) (1, 1) and (0, 0); a judge that says 1 of everything."""
    images, probe, old = small_evaluation()
    table = metrics.summarise(*judged_by(images, probe, old, verdict=1), IDENTITY)
    cell = table[table["judge"] == "embedded"].set_index(["subtask", "metric"])[["value", "n"]]
    assert tuple(cell.loc[("single_object", "generation")]) == (1.0, 2)
    assert tuple(cell.loc[("single_object", "weak_generation")]) == (0.0, 1)
    assert tuple(cell.loc[("single_object", "false_negative_rate_n")]) == (2 / 3, 3)
    assert tuple(cell.loc[("single_object", "understanding_win_rate")]) == (0.0, 1)  # its new verdict is no
    assert tuple(cell.loc[("single_object", "triple_110")]) == (1, 2)
    assert tuple(cell.loc[("single_object", "judge_false_positive_rate")]) == (1.0, 1)
    assert tuple(cell.loc[("overall", "judge_probe_balanced_accuracy")]) == (0.5, 18)
    assert np.isnan(cell.loc[("single_object", "generation_corrected"), "value"])  # it cannot tell right from wrong

    images.loc[images["subtask"] == "shape", ["image", "truth"]] = [[0, 1], [0, 1], [0, 0]]
    images, probe, old = judged_by(images, probe, old)
    shape = images["subtask"] == "shape"
    images.loc[shape, "judge_verdict"] = [1, 1, 1]
    probe = pd.concat([probe, *[probe[probe["subtask"] == "shape"]] * 3])
    probe.loc[probe["subtask"] == "shape", "judge_verdict"] = [0, 1, 1, 1, 0, 1, 0, 0]  # 1 of 4 wrong, 3 of 4 right
    table = metrics.summarise(images, probe, old, IDENTITY)
    cell = table[table["judge"] == "embedded"].set_index(["subtask", "metric"])[["value", "n"]]
    assert tuple(cell.loc[("shape", "generation_corrected")]) == (pytest.approx((1 - 1 / 4) / (1 - 1 / 4 - 1 / 4)), 3)


def test_a_judge_like_the_oracle_gives_its_rows_and_changes_none_of_them():
    alone = metrics.summarise(*small_evaluation(), IDENTITY)
    table = metrics.summarise(*judged_by(*small_evaluation()), IDENTITY)
    same = table[table["judge"] != "embedded"].reset_index(drop=True)
    pd.testing.assert_frame_equal(same, alone)
    oracle = alone[alone["judge"] == "oracle"].drop(columns="judge")
    embedded = table[(table["judge"] == "embedded") & table["metric"].isin(oracle["metric"])].drop(columns="judge")
    pd.testing.assert_frame_equal(embedded.reset_index(drop=True), oracle.reset_index(drop=True))
    cell = table.set_index(["subtask", "metric", "judge"])["value"]
    assert cell["overall", "judge_balanced_accuracy_n", "embedded"] == 1
    assert cell["overall", "generation_corrected", "embedded"] == cell["overall", "generation", "oracle"]


def test_metrics_without_a_judge_are_those_of_verdicts_and_labels_alone():
    table = metrics.summarise(*judged_by(*small_evaluation()), IDENTITY)
    expected = {"nonunified", "nonunified_n", "balanced_accuracy"}
    expected |= {"probe_false_positive_rate", "probe_false_negative_rate"}
    assert set(table.loc[table["judge"] == "none", "metric"]) == expected
    assert not table.duplicated(["subtask", "metric", "judge"]).any()


def test_one_altered_verdict_changes_the_summary():
    images, probe, old = small_evaluation()
    before = metrics.summarise(images, probe, old, IDENTITY)
    images.loc[0, "verdict"] = 0
    changed = before[metrics.summarise(images, probe, old, IDENTITY)["value"].ne(before["value"]) & before["n"].gt(0)]
    assert {"nonunified", "nonunified_n", "false_negative_rate"} <= set(changed["metric"])
    assert set(changed["subtask"]) == {"single_object", "easy", "overall"}


def test_invented_runs_repeat_themselves():
    pd.testing.assert_frame_equal(run("sft", 3), run("sft", 3))
