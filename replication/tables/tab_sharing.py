"""Sharing in numbers: at which alignment of the branches, if any, does understanding improve when only generation is trained?

One row per family, or variant whose branches share only the lowest layers, and training: means over runs with 95 % intervals that
resample base models, then runs; changes against the pre-trained model in points. Below, the answer: the least alignment whose
interval of balanced accuracy is above 0 (improves) or below (falls), and the rank correlations of alignment with each change over all
runs, whose intervals treat runs as independent. Inputs: those of the figure sharing.
"""

import numpy as np
import pandas as pd

from replication.families import family_label
from replication.figures.sharing import TRAININGS, means_data, points_data, read_inputs
from replication.results import parse_arguments
from replication.statistics import correlation_ci, wilson_interval
from replication.tables.writing import latex, markdown, write_table

COLUMNS = {
    "alignment": "Alignment, mean |cosine|",
    "generation": "Generation ↑",
    "balanced_accuracy": "Balanced accuracy ↑",
    "false_positives": "False positives ↓",
    "changed": "Changed verdicts (%)",
    "nonunified": "Nonunified ↓",
}
GOOD = [training for training in TRAININGS if not training.endswith("swapped")]
KEYS = ["family", "training", "shared_layers", "layers"]


def answers(points, means):
    """Rows of the answer: a frame question, value, low, high, words. value: an alignment or a correlation, nan where there is none."""
    rows = []
    accuracy = means[means["quantity"] == "balanced_accuracy"].set_index(KEYS)
    alignment = means[means["quantity"] == "alignment"].set_index(KEYS)["mean"]
    trainings = {"own verdicts": GOOD, "swapped verdicts": [name for name in TRAININGS if name not in GOOD]}
    for name, members in trainings.items():
        chosen = accuracy[accuracy.index.get_level_values("training").isin(members)]
        if chosen.empty:
            continue
        for word, holds in (("improves", chosen["low"] > 0), ("falls", chosen["high"] < 0)):
            found = alignment[chosen.index[holds]]
            largest = f"at none of {len(chosen)}, alignments {alignment[chosen.index].min():.4f} to {alignment[chosen.index].max():.4f}"
            where = f"at {len(found)} of {len(chosen)}, the least {found.min():.4f}" if len(found) else largest
            rows.append(
                (f"balanced accuracy {word}, {name}", found.min() if len(found) else np.nan, np.nan, np.nan, where)
            )
        runs = points[points["training"].isin(members)]
        for quantity in ("balanced_accuracy", "false_positives", "changed", "generation"):
            estimate, low, high = correlation_ci(runs["alignment"], runs[quantity])
            text = f"{estimate:.2f} [{low:.2f}, {high:.2f}] over {len(runs)} runs"
            question = f"rank correlation of alignment and {COLUMNS[quantity].rstrip(' ↑↓').lower()}, {name}"
            rows.append((question, estimate, low, high, "–" if np.isnan(estimate) else text))
    return pd.DataFrame(rows, columns=["question", "value", "low", "high", "words"])


def cell(row):
    digits = 4 if row["quantity"] == "alignment" else 2 if row["quantity"] == "changed" else 1
    text = f"{row['mean']:.{digits}f}"
    return text if np.isnan(row["low"]) else f"{text} [{row['low']:.{digits}f}, {row['high']:.{digits}f}]"


def sharing_words(shared, layers):
    return "all" if shared == layers else "none" if shared == 0 else f"lowest {shared:.0f} of {layers:.0f}"


def layout(points, means):
    """The printed table: families, trainings and shared layers down, quantities across, and changed verdicts that are right."""
    shown = means[means["quantity"].isin(COLUMNS)]
    texts = shown.assign(text=shown.apply(cell, axis=1)).pivot(index=KEYS, columns="quantity", values="text")[
        list(COLUMNS)
    ]
    right = points.groupby(KEYS)["right"].sum()
    wrong_too = points.assign(all=points["changed_number"]).groupby(KEYS)["all"].sum()
    wins = []
    for key in texts.index:
        k, n = right[key], wrong_too[key]
        low, high = 100 * wilson_interval(k, n)
        wins.append(f"{k:.0f} of {n:.0f}" + (f" [{low:.0f}, {high:.0f}] %" if n else ""))
    texts = texts.rename(columns=COLUMNS).assign(
        **{"Changed and right": wins, "Runs": [str(n) for n in points.groupby(KEYS).size()]}
    )
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
