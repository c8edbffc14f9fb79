"""Intervals against scipy, hand-worked cases and simulated coverage."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from replication.statistics import (
    bootstrap_ci,
    cluster_bootstrap_ci,
    correlation_ci,
    crossed_bootstrap,
    crossed_correlation,
    holm,
    iqm,
    paired_bootstrap_ci,
    permuted_correlation_test,
    sign_flip_test,
    wilson_interval,
)


@given(st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_is_scipys(counts):
    successes, trials = counts
    expected = stats.binomtest(successes, trials).proportion_ci(method="wilson")
    assert wilson_interval(successes, trials) == pytest.approx([expected.low, expected.high], abs=1e-9)


def test_wilson_of_nothing_is_undefined():
    assert np.isnan(wilson_interval(0, 0)).all()


def test_iqm_trims_a_quarter_on_each_side():
    assert iqm([0, 1, 2, 3, 4, 5, 6, 100]) == np.mean([2, 3, 4, 5])
    assert iqm([1, 2, 9]) == 4  # trimming starts at four values


def test_stratified_bootstrap_is_repeatable_and_keeps_tasks_apart():
    scores = np.random.default_rng(1).normal([0, 100], 1, size=(6, 2))
    low, high = bootstrap_ci(scores, statistic=np.mean)
    assert (low, high) == tuple(bootstrap_ci(scores, statistic=np.mean))
    assert low < scores.mean() < high
    assert high - low < 2  # resampling across tasks would mix 0 and 100
    assert tuple(bootstrap_ci(scores, statistic=np.mean, seed=1)) != (low, high)


@pytest.mark.parametrize("seed", range(5))
def test_one_cluster_per_value_is_the_ordinary_bootstrap(seed):
    values = np.random.default_rng(seed).normal(size=8)  # spread values: with ties, quantiles jump from step to step
    rows = np.random.default_rng(5).integers(len(values), size=(10_000, len(values)))
    expected = np.quantile(values[rows].mean(axis=1), [0.025, 0.975])
    ours = cluster_bootstrap_ci(values, np.arange(len(values)))
    assert ours == pytest.approx(expected, abs=0.05 * np.ptp(values) + 1e-9)


def test_shared_bases_widen_the_interval():
    """Runs of one base model repeat each other: ignoring that would claim three times the data."""
    values, bases = np.array([0.2, 0.2, 0.2, 0.5, 0.5, 0.5, 0.8, 0.8, 0.8]), np.repeat([0, 1, 2], 3)
    clustered, naive = cluster_bootstrap_ci(values, bases), cluster_bootstrap_ci(values, np.arange(9))
    assert np.ptp(clustered) > 1.4 * np.ptp(naive)
    assert clustered == pytest.approx([0.2, 0.8])


def test_unequal_clusters_are_weighted_by_their_runs():
    low, high = cluster_bootstrap_ci([0.0, 0.0, 0.0, 1.0], [0, 0, 0, 1])
    assert (low, high) == (0, 1)
    assert cluster_bootstrap_ci([3.0, 3.0, 3.0], [0, 1, 1]) == pytest.approx([3, 3])


def test_pairing_removes_what_runs_share():
    rng = np.random.default_rng(0)
    before = rng.normal(0, 10, 30)
    after = before + rng.normal(1, 0.5, 30)
    low, high = paired_bootstrap_ci(before, after, np.arange(30))
    assert 0.5 < low < 1 < high < 1.5
    assert paired_bootstrap_ci(before, after[::-1], np.arange(30))[0] < 0


def test_interval_of_thirty_runs_covers_at_its_rate():
    rng = np.random.default_rng(2)
    intervals = [cluster_bootstrap_ci(rng.normal(size=30), np.arange(30), repetitions=500) for _ in range(300)]
    covered = np.mean([low <= 0 <= high for low, high in intervals])
    assert stats.binomtest(round(300 * covered), 300, 0.93).pvalue > 0.001  # a percentile bootstrap is slightly narrow


@pytest.mark.parametrize("method", ["spearman", "pearson"])
def test_correlation_is_scipys_and_its_interval_contains_it(method):
    rng = np.random.default_rng(3)
    x = rng.normal(size=25)
    y = x + rng.normal(size=25)
    estimate, low, high = correlation_ci(x, y, method)
    assert estimate == {"spearman": stats.spearmanr, "pearson": stats.pearsonr}[method](x, y).statistic
    assert 0 < low < estimate < high < 1
    flipped = correlation_ci(x, -y, method)
    assert flipped == pytest.approx((-estimate, -high, -low))


def test_spearman_interval_ignores_monotone_change():
    x, y = np.arange(12.0), np.array([2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11.0])
    assert correlation_ci(x, y) == pytest.approx(correlation_ci(np.exp(x), y))


def test_correlation_of_the_papers_own_points():
    """Gain in generation against initial Nonunified over the paper's 12 points (two models x six subtasks)."""
    from replication.results import paper_values

    table = paper_values("results")
    table = table[(table["benchmark"] == "t2i_compbench") & (table["subtask"] != "overall")]
    cells = table.pivot_table(index=["model", "subtask"], columns=["method", "metric"], values="percent")
    gain = cells["sft"]["generation"] - cells["pretrained"]["generation"]
    estimate, low, high = correlation_ci(cells["pretrained"]["nonunified"], gain)
    assert estimate == pytest.approx(0.64, abs=0.005)
    assert low < 0.53 < high  # what the paper prints


def test_a_constant_has_no_correlation():
    assert np.isnan(correlation_ci([1, 2, 3], [5, 5, 5])).all()


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
