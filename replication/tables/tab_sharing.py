"""Sharing in numbers: at which alignment of the branches, if any, does understanding improve when only generation is trained?

One row per family, or variant whose branches share only the lowest layers, and training: means over runs with 95 % intervals that
resample base models, then runs; changes against the pre-trained model in points. Below, the answer: the least alignment whose
interval of balanced accuracy is above 0 (improves) or below (falls), and the rank correlations of alignment with each change over
families, variants and runs, whose intervals resample the runs of each family, with all their variants. Inputs: as of figure sharing.
"""

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from replication.families import family_label
from replication.figures.sharing import TRAININGS, means_data, points_data, read_inputs
from replication.results import parse_arguments
from replication.statistics import LEVEL, wilson_interval, without_rounding_errors
from replication.tables.writing import latex, markdown, write_table

COLUMNS = {
    "alignment": "Alignment",
    "generation": "Generation ↑",
    "balanced_accuracy": "Balanced accuracy ↑",
    "false_positives": "False positives ↓",
    "changed": "Changed verdicts, %",
    "nonunified": "Nonunified ↓",
}
GOOD = [training for training in TRAININGS if not training.endswith("swapped")]
REPETITIONS = 1000  # of a bootstrap, for tenths
KEYS = ["family", "training", "shared_layers", "layers"]


def where(alignment, holds):
    """(least alignment where something holds, or nan, and the words for it), of series over families and variants."""
    if holds.any():
        least = alignment[holds].min()
        return least, f"at {holds.sum()} of {len(holds)}, the least alignment {least:.4f}"
    return np.nan, f"at none of {len(holds)}, alignments {alignment.min():.4f} to {alignment.max():.4f}"


def correlation(points, quantity):
    """Rank correlation of alignment and a change, with its 95 % interval over the resampled runs of each family, which keep all their
    variants: (estimate, low, high); nan where one of both does not vary, and no interval where a family has one run."""
    x, y = (without_rounding_errors(points[column]) for column in ("alignment", quantity))
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return np.nan, np.nan, np.nan
    estimate = spearmanr(x, y).statistic
    rows = points.assign(row=range(len(points)))
    families = [
        [run["row"].to_numpy() for _, run in family.groupby(["model", "seed"])] for _, family in rows.groupby("family")
    ]
    if min(map(len, families)) < 2:
        return estimate, np.nan, np.nan
    rng, found = np.random.default_rng(0), []
    for _ in range(REPETITIONS):
        drawn = np.concatenate([runs[place] for runs in families for place in rng.integers(len(runs), size=len(runs))])
        if np.ptp(x[drawn]) and np.ptp(y[drawn]):
            found.append(spearmanr(x[drawn], y[drawn]).statistic)
    return estimate, *np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])


def answers(points, means):
    """Rows of the answer: a frame question, value, low, high, words. value: an alignment or a correlation, nan where there is none."""
    wide = means.pivot(index=KEYS, columns="quantity", values=["mean", "low", "high"])
    verdicts = {"own verdicts": GOOD, "swapped verdicts": [name for name in TRAININGS if name not in GOOD]}
    rows = []
    for name, trainings in verdicts.items():
        chosen = wide[wide.index.isin(trainings, level="training")]
        runs = points[points["training"].isin(trainings)]
        if runs.empty:
            continue
        alignment = chosen["mean", "alignment"]
        low, high = (chosen[side, "balanced_accuracy"] for side in ("low", "high"))
        for word, holds in (("improves", low > 0), ("falls", high < 0)):
            least, words = where(alignment, holds)
            words = words if low.notna().any() else "one run has no interval"
            rows.append((f"{name}: balanced accuracy {word}", least, np.nan, np.nan, words))
        for quantity in ("balanced_accuracy", "false_positives", "changed", "generation"):
            estimate, low, high = correlation(runs, quantity)
            interval = "" if np.isnan(low) else f" [{low:.2f}, {high:.2f}]"
            words = "does not vary" if np.isnan(estimate) else f"{estimate:.2f}{interval}, {len(runs)} points"
            question = f"{name}: rank correlation of alignment and {quantity.replace('_', ' ')}"
            rows.append((question, estimate, low, high, words))
    return pd.DataFrame(rows, columns=["question", "value", "low", "high", "words"])


def cell(row):
    digits = 4 if row["quantity"] == "alignment" else 2 if row["quantity"] == "changed" else 1
    text = f"{row['mean']:.{digits}f}"
    return text if np.isnan(row["low"]) else f"{text} [{row['low']:.{digits}f}, {row['high']:.{digits}f}]"


def right_of(right, changed):
    low, high = 100 * wilson_interval(right, changed)
    return f"{right:.0f} of {changed:.0f}" + (f" [{low:.0f}, {high:.0f}] %" if changed else "")


def sharing_words(shared, layers):
    return "all" if shared == layers else "none" if shared == 0 else f"lowest {shared:.0f} of {layers:.0f}"


def layout(points, means):
    """The printed table: families, trainings and shared layers down, quantities across, changed verdicts that are right, runs."""
    shown = means[means["quantity"].isin(COLUMNS)]
    texts = shown.assign(text=shown.apply(cell, axis=1)).pivot(index=KEYS, columns="quantity", values="text")[
        list(COLUMNS)
    ]
    counts = points.groupby(KEYS).agg(right=("right", "sum"), changed=("changed_number", "sum"), runs=("seed", "size"))
    right = [right_of(row.right, row.changed) for row in counts.itertuples()]
    texts = texts.rename(columns=COLUMNS).assign(**{"Changed and right": right, "Runs": counts["runs"].astype(str)})
    names = [
        (family_label(family), TRAININGS[training][0], sharing_words(shared, layers))
        for family, training, shared, layers in texts.index
    ]
    texts.index = pd.MultiIndex.from_tuples(names)
    texts.columns.name = None
    return texts


def main():
    arguments = parse_arguments(__doc__)
    points = points_data(*read_inputs(arguments.inputs))
    means = means_data(points)
    found = answers(points, means)
    table = layout(points, means)
    answer = pd.DataFrame({"answer": found["words"].to_list()}, index=found["question"].to_list())
    tables = [(table, "lll" + "r" * table.shape[1]), (answer, "lp{7cm}")]
    tex = "\n\\bigskip\n\n".join(latex(*one) for one in tables)
    data = pd.concat([means.assign(part="means"), found.assign(part="answer")], ignore_index=True)
    write_table(tex, "\n".join(markdown(one) for one, _ in tables), data, arguments.output)


if __name__ == "__main__":
    main()
