"""Intervals against scipy, hand-worked cases and simulated coverage."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from replication.statistics import (
    auc_ci,
    bootstrap_ci,
    cluster_bootstrap_ci,
    difference_interval,
    iqm,
    kappa_ci,
    paired_bootstrap_ci,
    rank_correlation_ci,
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


def test_correlation_is_scipys_and_its_interval_contains_it():
    rng = np.random.default_rng(3)
    x = rng.normal(size=25)
    y = x + rng.normal(size=25)
    estimate, low, high = rank_correlation_ci(x, y)
    assert estimate == stats.spearmanr(x, y).statistic
    assert 0 < low < estimate < high < 1
    flipped = rank_correlation_ci(x, -y)
    assert flipped == pytest.approx((-estimate, -high, -low))


def test_spearman_interval_ignores_monotone_change():
    x, y = np.arange(12.0), np.array([2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11.0])
    assert rank_correlation_ci(x, y) == pytest.approx(rank_correlation_ci(np.exp(x), y))


def test_correlation_of_the_papers_own_points():
    """Gain in generation against initial Nonunified over the paper's 12 points (two models x six subtasks)."""
    from replication.results import paper_values

    table = paper_values("results")
    table = table[(table["benchmark"] == "t2i_compbench") & (table["subtask"] != "overall")]
    cells = table.pivot_table(index=["model", "subtask"], columns=["method", "metric"], values="percent")
    gain = cells["sft"]["generation"] - cells["pretrained"]["generation"]
    estimate, low, high = rank_correlation_ci(cells["pretrained"]["nonunified"], gain)
    assert estimate == pytest.approx(0.64, abs=0.005)
    assert low < 0.53 < high  # what the paper prints


def test_rounding_errors_take_no_ties_apart():
    x, y = np.array([3, 1, 2, 2, 1, 3, 2, 1.0]), np.array([1, 1, 2, 3, 2, 3, 1, 2.0])
    noisy = 1e-13 * np.random.default_rng(4).normal(size=(2, 8))
    assert stats.spearmanr(x + noisy[0], y + noisy[1]).statistic != pytest.approx(stats.spearmanr(x, y).statistic)
    assert rank_correlation_ci(x + noisy[0], y + noisy[1]) == rank_correlation_ci(x, y)


def test_a_constant_has_no_correlation():
    assert np.isnan(rank_correlation_ci([1, 2, 3], [5, 5, 5])).all()


def test_difference_of_proportions_is_newcombes():
    """Newcombe (1998), table II, (a): 56/70 - 48/80 with his method 10."""
    assert difference_interval(56, 70, 48, 80) == pytest.approx([0.0524, 0.3339], abs=5e-5)
    low, high = difference_interval(48, 80, 56, 70)
    assert (-high, -low) == pytest.approx(tuple(difference_interval(56, 70, 48, 80)))


def test_kappa_of_a_table_worked_by_hand():
    """20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no: agreement 0.7, by chance 0.5."""
    first, second = np.repeat([1, 1, 0, 0], [20, 5, 10, 15]), np.repeat([1, 0, 1, 0], [20, 5, 10, 15])
    kappa, low, high = kappa_ci(first, second)
    assert kappa == pytest.approx(0.4)
    assert low < kappa < high and 0.4 < high - low < 0.6  # 4 standard errors of 0.13 (Fleiss, Cohen and Everitt 1969)
    assert kappa_ci(first, first)[0] == 1
    assert kappa_ci(np.ones(50), second) == (0, 0, 0)
    assert np.isnan(kappa_ci(np.ones(5), np.ones(5))).all()


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.integers(0, 5)), min_size=4, max_size=30))
def test_auc_is_mann_whitneys_share(cases):
    scores, positive, runs = map(np.array, zip(*cases, strict=True))
    estimate, low, high = auc_ci(scores, positive, runs, runs % 2, repetitions=200)
    if positive.all() or not positive.any():
        assert np.isnan([estimate, low, high]).all()
        return
    u = stats.mannwhitneyu(scores[positive], scores[~positive]).statistic
    assert estimate == pytest.approx(u / (positive.sum() * (~positive).sum()))
    mirrored = auc_ci(-scores, positive, runs, runs % 2, repetitions=200)
    assert mirrored == pytest.approx((1 - estimate, 1 - high, 1 - low))


def test_auc_intervals_resample_runs_and_not_cases():
    """Cases of a run that are copies of one another carry no more than one."""
    rng = np.random.default_rng(0)
    positive = np.arange(24) % 2 == 0
    scores, runs = rng.normal(size=24) + positive, np.arange(24) // 2
    clusters = runs % 3
    once = auc_ci(scores, positive, runs, clusters)
    copies = auc_ci(*(np.repeat(column, 10) for column in (scores, positive, runs, clusters)))
    assert copies == pytest.approx(once)
    many_runs = auc_ci(*(np.repeat(column, 10) for column in (scores, positive)), np.arange(240), np.arange(240))
    assert many_runs[2] - many_runs[1] < 0.6 * (once[2] - once[1])
    assert auc_ci(positive, positive, runs, clusters) == (1, 1, 1)


def test_auc_intervals_resample_arms_too():
    """Arms that differ more than runs do make the interval wide only where arms are drawn as well."""
    rng = np.random.default_rng(0)
    arm, run = (part.ravel() for part in np.meshgrid(np.arange(8), np.arange(12)))
    positive = arm % 2 == 0
    scores = (rng.normal(size=8) + [1, 0] * 4)[arm] + 0.05 * rng.normal(size=96)
    of_runs = auc_ci(scores, positive, run, run)
    of_both = auc_ci(scores, positive, run, run, arm)
    assert of_both[0] == of_runs[0] and of_both[2] - of_both[1] > 3 * (of_runs[2] - of_runs[1])
    one_arm = auc_ci(scores, rng.random(96) < 0.5, run, run, np.zeros(96))
    assert one_arm[1] < one_arm[0] < one_arm[2]
