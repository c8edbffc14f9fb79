"""Point estimates, 95 % intervals and tests. Each has a fixed seed, so the same numbers give the same result.

Runs that share a base model are not independent: `cluster_bootstrap_ci` resamples base models first, then the runs
of each drawn base model. `crossed_bootstrap` resamples the prompts, which all runs share, as well.
"""

import zlib

import numpy as np
from scipy import stats

REPETITIONS = 10_000
PERMUTATIONS = 9_999  # the smallest p-value is 1 in 10,000
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


def crossed_bootstrap(top, bottom, clusters, groups, repetitions=REPETITIONS, seed=0):
    """Replicates of sum(top) / sum(bottom) when runs and the units that they share are both resampled.

    top, bottom (runs, units); clusters (runs,), each run's base model: base models are resampled, then the runs of each;
    groups (units,), each unit's subtask: units are resampled within it. The same clusters and groups give the same
    draws, so replicates of two quantities of the same runs are paired. Returns (repetitions,), nan where bottom is 0.
    """
    weights = _run_weights(np.asarray(clusters), repetitions, np.random.default_rng([seed, 0]))
    totals = np.zeros((2, repetitions))
    for group in np.unique(groups):
        inside = np.asarray(groups) == group
        rng = np.random.default_rng([seed, 1, zlib.crc32(str(group).encode())])
        counts = rng.multinomial(inside.sum(), np.full(inside.sum(), 1 / inside.sum()), size=repetitions)
        totals += [((weights @ values[:, inside]) * counts).sum(axis=1) for values in (top, bottom)]
    return np.divide(*totals, out=np.full(repetitions, np.nan), where=totals[1] != 0)


def _run_weights(clusters, repetitions, rng):
    """How often each run is drawn: (repetitions, runs)."""
    labels = np.unique(clusters)
    drawn = rng.multinomial(len(labels), np.full(len(labels), 1 / len(labels)), size=repetitions)
    weights = np.zeros((repetitions, len(clusters)))
    for index, label in enumerate(labels):
        inside = clusters == label
        weights[:, inside] = rng.multinomial(drawn[:, index] * inside.sum(), np.full(inside.sum(), 1 / inside.sum()))
    return weights


def sign_flip_test(values, seed=0):
    """One-sided p-value that the sum of independent values (units,) is positive: each is as likely to be negated."""
    values = np.append(values[values != 0], [0, 0])  # zeros change nothing, and scipy wants two values
    test = stats.permutation_test(
        (values,),
        lambda flipped, axis: flipped.sum(axis=axis),
        permutation_type="samples",
        alternative="greater",
        vectorized=True,
        n_resamples=PERMUTATIONS,
        rng=np.random.default_rng(seed),
    )
    return float(test.pvalue)


def permuted_correlation_test(x, y, seed=0):
    """One-sided p-value that Spearman's correlation of x and y (clusters, units) is positive: units of x are permuted,
    in all clusters alike."""
    x, y = (stats.rankdata(values).reshape(np.shape(values)) for values in (x, y))
    test = stats.permutation_test(
        (np.arange(x.shape[1]),),
        lambda order: (x[:, order] * y).sum(),
        permutation_type="pairings",
        alternative="greater",
        n_resamples=PERMUTATIONS,
        rng=np.random.default_rng(seed),
    )
    return float(test.pvalue)


def crossed_correlation(x, y, repetitions=REPETITIONS, seed=0):
    """Replicates of Spearman's correlation of x and y (clusters, units) when both clusters and units are resampled;
    nan where a resample does not vary."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    rng = np.random.default_rng(seed)
    clusters, units = (rng.integers(size, size=(repetitions, size)) for size in x.shape)
    ranks = [
        stats.rankdata(values[clusters[:, :, None], units[:, None, :]].reshape(repetitions, -1), axis=1)
        for values in (x, y)
    ]
    x, y = (values - values.mean(axis=1, keepdims=True) for values in ranks)
    scale = np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1))
    return np.divide((x * y).sum(axis=1), scale, out=np.full(repetitions, np.nan), where=scale > 0)


def holm(p_values):
    """Holm's step-down correction: (tests,) p-values to corrected ones, in the same order."""
    p_values = np.asarray(p_values, float)
    order = np.argsort(p_values, kind="stable")
    stepped = p_values[order] * np.arange(len(p_values), 0, -1)
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(np.maximum.accumulate(stepped), 1)
    return corrected


def _percentiles(values, level):
    return np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
