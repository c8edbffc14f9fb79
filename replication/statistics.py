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


def correlation_ci(x, y, method="spearman", level=LEVEL, repetitions=REPETITIONS, seed=0):
    """Correlation of paired (points,) arrays with its percentile interval over resampled points.

    `method` is "spearman" or "pearson". Returns (estimate, low, high); NaNs when x or y does not vary.
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return np.nan, np.nan, np.nan
    estimate = {"spearman": stats.spearmanr, "pearson": stats.pearsonr}[method](x, y).statistic
    rows = np.random.default_rng(seed).integers(len(x), size=(repetitions, len(x)))
    resampled_x, resampled_y = x[rows], y[rows]
    if method == "spearman":
        resampled_x, resampled_y = stats.rankdata(resampled_x, axis=1), stats.rankdata(resampled_y, axis=1)
    resampled_x = resampled_x - resampled_x.mean(axis=1, keepdims=True)
    resampled_y = resampled_y - resampled_y.mean(axis=1, keepdims=True)
    scale = np.sqrt((resampled_x**2).sum(axis=1) * (resampled_y**2).sum(axis=1))
    varied = scale > 0  # a resample of one single point has no correlation
    return float(estimate), *_percentiles((resampled_x * resampled_y).sum(axis=1)[varied] / scale[varied], level)


def _percentiles(values, level):
    return np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
