"""Point estimates and 95 % intervals. Every interval has a fixed seed, so the same numbers give the same interval.

Runs that share a base model are not independent: `cluster_bootstrap_ci` resamples base models first, then the runs
of each drawn base model.
"""

import numpy as np
from scipy import stats

REPETITIONS = 10_000
LEVEL = 0.95


def iqm(scores, axis=None):
    """Interquartile mean: 25 % trimmed on both sides. The plain mean when fewer than four values are given."""
    return stats.trim_mean(scores, 0.25, axis=axis)


def wilson_interval(successes, trials, level=LEVEL):
    """Wilson score interval (low, high) of a proportion; (nan, nan) when `trials` is 0."""
    if trials == 0:
        return np.array([np.nan, np.nan])
    z = stats.norm.ppf((1 + level) / 2)
    share = successes / trials
    centre = share + z**2 / (2 * trials)
    half_width = z * np.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    return np.clip(np.array([centre - half_width, centre + half_width]) / (1 + z**2 / trials), 0, 1)


def difference_interval(successes, trials, other_successes, other_trials, level=LEVEL):
    """Newcombe's interval (low, high) of the difference of two independent proportions, from their Wilson intervals."""
    first, second = successes / trials, other_successes / other_trials
    low, high = wilson_interval(successes, trials, level)
    other_low, other_high = wilson_interval(other_successes, other_trials, level)
    difference = first - second
    return np.array(
        [
            difference - np.hypot(first - low, other_high - second),
            difference + np.hypot(high - first, second - other_low),
        ]
    )


def bootstrap_ci(scores, statistic=iqm, level=LEVEL, repetitions=REPETITIONS, seed=0):
    """Stratified percentile bootstrap: `scores` is (runs, tasks) and runs are resampled within each task.

    `statistic(values, axis)` reduces an axis, as `iqm` and `numpy.mean` do. Returns (low, high).
    """
    scores = np.asarray(scores, float)
    runs, tasks = scores.shape
    rows = np.random.default_rng(seed).integers(runs, size=(repetitions, runs, tasks))
    resampled = np.take_along_axis(scores[None], rows, axis=1).reshape(repetitions, runs * tasks)
    return _percentiles(statistic(resampled, axis=1), level)


def cluster_bootstrap_ci(values, clusters, level=LEVEL, repetitions=REPETITIONS, seed=0):
    """Hierarchical percentile bootstrap of a mean: clusters are resampled, then the values within each drawn cluster.

    values (runs,) floats; clusters (runs,) labels, such as each run's base model. Returns (low, high).
    """
    values, clusters = np.asarray(values, float), np.asarray(clusters)
    groups = [values[clusters == cluster] for cluster in np.unique(clusters)]
    rng = np.random.default_rng(seed)
    shape = (repetitions, len(groups))
    drawn = rng.integers(len(groups), size=shape)
    totals, sizes = np.zeros(shape), np.zeros(shape)
    for index, group in enumerate(groups):
        sums = group[rng.integers(len(group), size=(*shape, len(group)))].sum(axis=2)
        totals = np.where(drawn == index, sums, totals)
        sizes = np.where(drawn == index, len(group), sizes)
    return _percentiles(totals.sum(axis=1) / sizes.sum(axis=1), level)


def paired_bootstrap_ci(before, after, clusters, level=LEVEL, repetitions=REPETITIONS, seed=0):
    """Interval of the mean of `after - before`, run by run: (runs,) arrays in the same order. Returns (low, high)."""
    differences = np.asarray(after, float) - np.asarray(before, float)
    return cluster_bootstrap_ci(differences, clusters, level, repetitions, seed)


def without_rounding_errors(values):
    """`values` to ten digits: means and differences of equal counts are ties again, and a change of nothing is 0."""
    return np.round(np.asarray(values, float), 10) + 0.0  # no zero is negative


def rank_correlation_ci(x, y, level=LEVEL, repetitions=REPETITIONS, seed=0):
    """Spearman's correlation of paired (points,) arrays with its percentile interval over resampled points, which it takes for
    independent.

    Returns (estimate, low, high); NaNs when x or y does not vary.
    """
    x, y = without_rounding_errors(x), without_rounding_errors(y)
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return np.nan, np.nan, np.nan
    estimate = stats.spearmanr(x, y).statistic
    rows = np.random.default_rng(seed).integers(len(x), size=(repetitions, len(x)))
    resampled_x, resampled_y = (stats.rankdata(values[rows], axis=1) for values in (x, y))
    resampled_x = resampled_x - resampled_x.mean(axis=1, keepdims=True)
    resampled_y = resampled_y - resampled_y.mean(axis=1, keepdims=True)
    scale = np.sqrt((resampled_x**2).sum(axis=1) * (resampled_y**2).sum(axis=1))
    varied = scale > 0  # a resample of one single point has no correlation
    return float(estimate), *_percentiles((resampled_x * resampled_y).sum(axis=1)[varied] / scale[varied], level)


def kappa_ci(first, second, level=LEVEL, repetitions=REPETITIONS, seed=0):
    """Cohen's kappa of two (items,) arrays of 0 and 1 with its percentile interval over resampled items.

    Returns (estimate, low, high); NaNs when both always say the same one thing.
    """
    counts = np.bincount(2 * np.asarray(first, int) + np.asarray(second, int), minlength=4)
    size = counts.sum()
    resampled = np.random.default_rng(seed).multinomial(size, counts / size, size=repetitions)
    no_no, no_yes, yes_no, yes_yes = np.vstack([counts, resampled]).T / size
    first_yes, second_yes = yes_no + yes_yes, no_yes + yes_yes
    by_chance = first_yes * second_yes + (1 - first_yes) * (1 - second_yes)
    if by_chance[0] == 1:
        return np.nan, np.nan, np.nan
    varied = by_chance < 1  # a resample of one single answer has no kappa
    kappa = (no_no + yes_yes - by_chance)[varied] / (1 - by_chance)[varied]
    return float(kappa[0]), *_percentiles(kappa[1:], level)


def auc_ci(scores, positive, runs, clusters, arms=None, level=LEVEL, repetitions=REPETITIONS, seed=0):
    """Area under the ROC curve: how often a positive case scores higher than a negative one, ties counting half.

    scores, positive (cases,); runs (cases,) label the run that cases share, clusters (cases,) the base model that runs
    share, arms (cases,) what was done to a run. Base models are resampled, then the runs of each with all their cases, and
    where `arms` is given, arms with all theirs. Returns (estimate, low, high); NaNs unless both kinds occur.
    """
    scores, positive, runs, clusters = map(np.asarray, (without_rounding_errors(scores), positive, runs, clusters))
    if positive.all() or not positive.any():
        return np.nan, np.nan, np.nan
    names, run = np.unique(runs, return_inverse=True)
    above, below = scores[positive, None], scores[None, ~positive]
    wins = (above > below) + 0.5 * (above == below)

    cluster_of_run = np.array([clusters[run == index][0] for index in range(len(names))])
    groups = [np.flatnonzero(cluster_of_run == cluster) for cluster in np.unique(cluster_of_run)]
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(groups), np.full(len(groups), 1 / len(groups)), size=repetitions)
    weights = np.zeros((repetitions, len(names)))
    for times, group in zip(drawn.T, groups, strict=True):
        weights[:, group] = rng.multinomial(times * len(group), np.full(len(group), 1 / len(group)))
    weights = weights[:, run]
    if arms is not None:
        kinds, arm = np.unique(arms, return_inverse=True)
        weights *= rng.multinomial(len(kinds), np.full(len(kinds), 1 / len(kinds)), size=repetitions)[:, arm]
    of_positive, of_negative = weights[:, positive], weights[:, ~positive]
    compared = of_positive.sum(axis=1) * of_negative.sum(axis=1)
    won = (of_positive @ wins * of_negative).sum(axis=1)
    defined = compared > 0  # a resample may hold one kind only
    return float(wins.mean()), *_percentiles(won[defined] / compared[defined], level)


def _percentiles(values, level):
    return np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
