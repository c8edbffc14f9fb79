"""Intervals and tests of the claims, where runs and the prompts that they share are both resampled, and Holm's correction.

Each has a fixed seed, so the same numbers give the same result.
"""

import zlib

import numpy as np
from scipy import stats

from replication.metrics import rogan_gladen
from replication.statistics import REPETITIONS

PERMUTATIONS = 9_999  # the smallest p-value is 1 in 10,000


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


def corrected_bootstrap(shares, wrong_yes, wrong_no, clusters, repetitions=REPETITIONS, seed=0):
    """Replicates of a mean over runs and subtasks of shares that are corrected for their judge's errors (`rogan_gladen`),
    when base models, their runs, and the labelled scenes on which the errors were counted are resampled.

    shares (runs, subtasks); wrong_yes, wrong_no (runs, subtasks, pairs), whether the run's judge errs on the wrong and on the
    right scene of each pair, the same scenes in all runs; clusters (runs,). Runs are drawn as in `crossed_bootstrap`, so
    replicates of both are paired. Returns (repetitions,), nan where no subtask can be corrected.
    """
    weights = _run_weights(np.asarray(clusters), repetitions, np.random.default_rng([seed, 0]))
    rng = np.random.default_rng([seed, 2])
    pairs = wrong_yes.shape[2]
    totals = np.zeros((2, repetitions))
    for subtask in range(shares.shape[1]):
        counts = rng.multinomial(pairs, np.full(pairs, 1 / pairs), size=repetitions)
        errors = (counts @ wrong[:, subtask].T / pairs for wrong in (wrong_yes, wrong_no))
        corrected = rogan_gladen(shares[:, subtask], *errors)
        totals += [(weights * np.nan_to_num(corrected)).sum(axis=1), (weights * np.isfinite(corrected)).sum(axis=1)]
    return np.divide(*totals, out=np.full(repetitions, np.nan), where=totals[1] > 0)


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


def leads(values, positive, runs):
    """How often a positive case has the higher value of a pair, less how often the other one, of all pairs within each run:
    (won (runs,), pairs (runs,)). values, positive (cases,); runs (cases,) label the run of a case, sorted in the result."""
    found = [_signs(values, positive, runs == run) for run in np.unique(runs)]
    return np.array([signs.sum() for signs in found]), np.array([signs.size for signs in found])


def resampled_lead(values, positive, runs, clusters, repetitions=REPETITIONS, seed=0):
    """Replicates of sum(won) / sum(pairs) of `leads` when base models, the runs of each, and the cases of each kind within a run
    are resampled; a run that is drawn twice brings the same cases twice, which makes the interval wider than two resamples would.
    clusters (cases,): each case's base model. Returns (repetitions,), nan where no pair is drawn."""
    labels, first = np.unique(runs, return_index=True)
    rng = np.random.default_rng([seed, 3])
    weights = _run_weights(np.asarray(clusters)[first], repetitions, np.random.default_rng([seed, 0]))
    won, pairs = np.zeros((2, repetitions))
    for weight, run in zip(weights.T, labels, strict=True):
        signs = _signs(values, positive, runs == run)
        if signs.size:
            above, below = (rng.multinomial(size, np.full(size, 1 / size), size=repetitions) for size in signs.shape)
            won += weight * ((above @ signs) * below).sum(axis=1)
            pairs += weight * signs.size
    return np.divide(won, pairs, out=np.full(repetitions, np.nan), where=pairs > 0)


def permuted_lead_test(values, positive, runs, seed=0):
    """One-sided p-value that positive cases lead: which cases of a run are positive is drawn anew."""
    rng, observed, drawn = np.random.default_rng(seed), 0.0, np.zeros(PERMUTATIONS)
    for run in np.unique(runs):
        ranks, inside = stats.rankdata(values[runs == run]), positive[runs == run]
        observed += ranks[inside].sum()  # the lead is twice this, and what no permutation changes
        drawn += rng.permuted(np.tile(ranks, (PERMUTATIONS, 1)), axis=1)[:, : inside.sum()].sum(axis=1)
    return float((1 + (drawn >= observed - 1e-9).sum()) / (1 + PERMUTATIONS))


def _signs(values, positive, inside):
    """Signs (positive cases, others) of the differences within one run."""
    return np.sign(values[inside & positive][:, None] - values[inside & ~positive][None])


def holm(p_values):
    """Holm's step-down correction: (tests,) p-values to corrected ones, in the same order."""
    p_values = np.asarray(p_values, float)
    order = np.argsort(p_values, kind="stable")
    stepped = p_values[order] * np.arange(len(p_values), 0, -1)
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(np.maximum.accumulate(stepped), 1)
    return corrected
