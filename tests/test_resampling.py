"""Crossed resampling, permutation tests and Holm's correction against scipy, hand-worked cases and simpler bootstraps."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from replication.metrics import rogan_gladen
from replication.resampling import (
    corrected_bootstrap,
    crossed_bootstrap,
    crossed_correlation,
    holm,
    leads,
    permuted_correlation_test,
    permuted_lead_test,
    resampled_lead,
    sign_flip_test,
)
from replication.statistics import cluster_bootstrap_ci


def test_holm_by_hand():
    """Sorted 0.01, 0.03, 0.04, 0.5 times 4, 3, 2, 1 is 0.04, 0.09, 0.08, 0.5; none may be below the one before it."""
    assert holm([0.03, 0.01, 0.5, 0.04]) == pytest.approx([0.09, 0.04, 0.5, 0.09])
    assert holm([0.6, 0.7]).tolist() == [1, 1]
    assert holm([0.02]) == [0.02]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_lies_between_no_correction_and_bonferroni_and_keeps_the_order(p_values):
    corrected, p_values = holm(p_values), np.array(p_values)
    assert (corrected >= p_values).all() and (corrected <= np.minimum(1, len(p_values) * p_values)).all()
    assert (np.diff(corrected[np.argsort(p_values, kind="stable")]) >= 0).all()


def test_sign_flips_of_equal_values_are_the_sign_test():
    for wins, losses in ((4, 1), (7, 2), (1, 0), (3, 3)):
        values = np.array([1.0] * wins + [-1.0] * losses + [0.0] * 5)
        expected = stats.binomtest(wins, wins + losses, alternative="greater").pvalue
        assert sign_flip_test(values) == pytest.approx(expected)
    assert sign_flip_test(np.zeros(4)) == 1


def test_sign_flips_agree_with_the_t_test_on_many_values():
    values = np.random.default_rng(5).normal(0.1, 1, 300)
    expected = stats.ttest_1samp(values, 0, alternative="greater").pvalue
    assert sign_flip_test(values) == pytest.approx(expected, abs=4 * np.sqrt(expected / 9999))
    assert sign_flip_test(values) == sign_flip_test(values)
    assert sign_flip_test(-values) == pytest.approx(1 - expected, abs=0.02)


def test_permuted_correlation_counts_permutations():
    """Four units in their order: one permutation of 24 reaches a correlation of 1, also when two clusters move together."""
    gap = np.array([[1.0, 2, 3, 4]])
    assert permuted_correlation_test(gap, gap) == pytest.approx(1 / 24)
    both = np.concatenate([gap, gap + 10])
    assert permuted_correlation_test(both, both) == pytest.approx(1 / 24)
    assert permuted_correlation_test(gap, -gap) == 1


def test_crossed_correlation_holds_the_plain_one_and_follows_its_sign():
    rng = np.random.default_rng(6)
    x = rng.normal(size=(3, 9))
    y = x + rng.normal(size=(3, 9))
    low, high = np.nanquantile(crossed_correlation(x, y), [0.025, 0.975])
    assert low < stats.spearmanr(x.ravel(), y.ravel()).statistic < high
    assert crossed_correlation(x, -y) == pytest.approx(-crossed_correlation(x, y))
    assert np.isnan(crossed_correlation(x, np.ones_like(x))).all()


def test_crossed_bootstrap_of_one_run_is_the_bootstrap_of_its_units():
    values = np.random.default_rng(7).normal(size=(1, 50))
    replicates = crossed_bootstrap(values, np.ones((1, 50)), ["base"], ["subtask"] * 50)
    rows = np.random.default_rng(8).integers(50, size=(10_000, 50))
    expected = np.quantile(values[0, rows].mean(axis=1), [0.025, 0.975])
    assert np.quantile(replicates, [0.025, 0.975]) == pytest.approx(expected, abs=0.02)


def test_crossed_bootstrap_of_runs_that_differ_only_by_base_is_the_cluster_bootstrap():
    runs, bases = np.array([0.1, 0.5, 0.9, 0.2, 0.4]), np.array([0, 1, 2, 0, 1])
    replicates = crossed_bootstrap(np.tile(runs[:, None], 12), np.ones((5, 12)), bases, np.arange(12) % 3)
    assert np.quantile(replicates, [0.025, 0.975]) == pytest.approx(cluster_bootstrap_ci(runs, bases), abs=0.02)


def test_crossed_bootstrap_keeps_subtasks_apart_and_pairs_quantities():
    top = np.tile([0.0, 0.0, 1.0, 1.0], (3, 1))
    groups = ["easy", "easy", "hard", "hard"]
    assert (crossed_bootstrap(top, np.ones((3, 4)), [0, 1, 2], groups) == 0.5).all()
    first, second = (
        crossed_bootstrap(values, np.ones((3, 4)), [0, 1, 2], groups)
        for values in np.random.default_rng(9).normal(size=(2, 3, 4))
    )
    third = crossed_bootstrap(
        np.random.default_rng(9).normal(size=(2, 3, 4)).sum(axis=0), np.ones((3, 4)), [0, 1, 2], groups
    )
    assert first + second == pytest.approx(third)


def test_crossed_bootstrap_divides_sums():
    """A ratio of sums, not a mean of ratios; nan when a resample holds nothing to count."""
    top, bottom = np.array([[1.0, 0, 0]]), np.array([[1.0, 3, 0]])
    replicates = crossed_bootstrap(top, bottom, [0], ["a", "b", "c"])
    assert (replicates == 0.25).all()
    assert np.isnan(crossed_bootstrap(top * 0, bottom * 0, [0], ["a", "b", "c"])).all()


def test_a_judge_without_errors_needs_no_correction():
    shares = np.random.default_rng(0).random((5, 3))
    none, clusters = np.zeros((5, 3, 8)), ["a", "a", "b", "b", "c"]
    plain = crossed_bootstrap(shares.mean(axis=1)[:, None], np.ones((5, 1)), clusters, ["all"])
    np.testing.assert_allclose(corrected_bootstrap(shares, none, none, clusters), plain)


def test_errors_alike_in_all_scenes_are_corrected_by_hand():
    """Half of the wrong and none of the right scenes err, in every resample: every pair is the same."""
    shares, clusters = np.array([[0.6, 0.8], [0.7, 0.5]]), ["a", "b"]
    always, never = np.ones((2, 2, 4)), np.zeros((2, 2, 4))
    assert np.isnan(corrected_bootstrap(shares, always, never, clusters)).all()  # says yes to everything
    drawn = corrected_bootstrap(shares, np.stack([never[:, 0], always[:, 1]], axis=1), never, clusters, repetitions=50)
    assert set(drawn.round(9)) <= {0.6, 0.7, 0.65}  # the second subtask cannot be corrected and is left out


def test_the_corrected_interval_holds_the_truth():
    """Simulated judges of known error rates: the interval over scenes and runs covers the true share about as often as it
    says, where the judge's own share never does."""
    rng, covered, estimates = np.random.default_rng(1), 0, []
    subtasks, pairs, runs, images = 3, 60, 12, 100
    truth, false_positives, false_negatives = 0.5, 0.3, 0.05
    for _ in range(60):
        wrong_yes = np.repeat(rng.random((1, subtasks, pairs)) < false_positives, runs, axis=0)
        wrong_no = np.repeat(rng.random((1, subtasks, pairs)) < false_negatives, runs, axis=0)
        accepted = truth * (1 - false_negatives) + (1 - truth) * false_positives
        shares = rng.binomial(images, accepted, (runs, subtasks)) / images
        drawn = corrected_bootstrap(shares, wrong_yes, wrong_no, range(runs), repetitions=500)
        low, high = np.quantile(drawn, [0.025, 0.975])
        covered += low <= truth <= high
        assert shares.mean() > truth + 0.05
        estimates.append(rogan_gladen(shares, wrong_yes.mean(axis=2), wrong_no.mean(axis=2)).mean())
    assert covered >= 51  # 57 expected
    assert np.mean(estimates) == pytest.approx(truth, abs=0.02)


LEAD = np.array([3.0, 1.0, 2.0, 0.0, 9.0, 9.0, 5.0])
POSITIVE = np.array([True, True, False, False, True, False, True])
RUNS = np.array([0, 0, 0, 0, 1, 1, 2])  # the last has no other case to be compared with


def test_leads_by_hand():
    """3 and 1 against 2 and 0 win three times of four; 9 against 9 is a draw; runs are not compared."""
    won, pairs = leads(LEAD, POSITIVE, RUNS)
    assert won.tolist() == [2, 0, 0] and pairs.tolist() == [4, 1, 0]


def test_a_lead_within_one_run_is_tested_as_by_mann_and_whitney():
    rng = np.random.default_rng(0)
    values, positive = rng.normal(size=19), np.arange(19) < 8
    values[positive] += 0.8
    expected = stats.mannwhitneyu(values[positive], values[~positive], alternative="greater", method="exact").pvalue
    assert permuted_lead_test(values, positive, np.zeros(19)) == pytest.approx(expected, abs=0.01)
    # what all cases of a run have in common cannot make a lead, though positive cases are more frequent in one of them
    runs, values = np.repeat([0, 1], 20), rng.normal(size=40)
    more_in_one = np.tile(np.arange(20), 2) < np.where(runs == 1, 15, 3)
    apart, alike = (permuted_lead_test(values + shift * runs, more_in_one, runs) for shift in (50, 0))
    assert apart == alike > 0.01


def test_resampled_leads_spread_as_those_of_a_plain_bootstrap():
    rng = np.random.default_rng(1)
    values, positive = rng.normal(size=30), np.arange(30) < 10
    found = resampled_lead(values, positive, np.zeros(30), np.array(["base"] * 30))
    plain = []
    for _ in range(2000):
        ours, others = rng.choice(values[positive], 10), rng.choice(values[~positive], 20)
        plain.append(np.sign(ours[:, None] - others).mean())
    assert np.quantile(found, [0.025, 0.5, 0.975]) == pytest.approx(np.quantile(plain, [0.025, 0.5, 0.975]), abs=0.06)
    runs, clusters = np.repeat(range(3), 10), np.repeat(["a", "a", "b"], 10)
    whole = np.tile([1.0, 0.0], 15) * np.where(runs == 2, -1, 1)  # base b says the opposite of base a
    spread = resampled_lead(whole, np.tile([True, False], 15), runs, clusters)
    assert spread.min() == -1 and spread.max() == 1
    assert np.isnan(resampled_lead(np.ones(2), np.array([True, True]), np.zeros(2), np.array(["a", "a"]))).all()


@pytest.mark.parametrize(("between_models", "least", "most"), [(0.01, 0.93, 1.0), (0.06, 0.6, 0.92)])
def test_how_often_the_claims_interval_holds_the_truth(between_models, least, most):
    """Of simulated changes of no true size, on five runs over three base models and 360 prompts: too often (the interval is wide)
    where base models hardly differ in what training does to them, and too rarely where they differ by much more than by chance."""
    rng = np.random.default_rng(0)
    clusters, groups = np.arange(5) % 3, np.repeat(np.arange(9), 40)
    held, number = 0, 80
    for _ in range(number):
        of_run = rng.normal(0, between_models, 3)[clusters] + rng.normal(0, 0.01, 5)
        changes = of_run[:, None] + rng.normal(0, 0.2, 360) + rng.normal(0, 0.45, (5, 360))
        replicates = crossed_bootstrap(changes, np.ones_like(changes), clusters, groups, repetitions=400)
        low, high = np.quantile(replicates, [0.025, 0.975])
        held += low <= 0 <= high
    assert least <= held / number <= most
