"""Table 1: generation, understanding and Nonunified score before and after self-improvement, ours beside the paper's.

Per cent, mean over runs with its 95 % interval (base models resampled, then the runs of each). Strata and overall are
plain means over subtasks. The paper's cells are Janus-Pro-7B's where a subtask bears the same name (T2I-CompBench++ for
overall); its understanding is a win rate only.
"""

import pandas as pd

from replication.results import GROUPS, mean_over_runs, paper_cell, parse_arguments, read_metrics, runs
from replication.scenes import SUBTASKS
from replication.style import METHODS, label
from replication.tables.writing import save_table

METRICS = {
    "generation": "Generation ↑",
    "understanding_win_rate": "Understanding, win rate ↑",
    "balanced_accuracy": "Understanding, balanced accuracy ↑",
    "nonunified": "Nonunified ↓",
}
ROWS = (*GROUPS, *SUBTASKS)
PAPER_METHODS = ("pretrained", "sft", "dpo")  # the paper reports one SFT; its rule is not stated


def table_data(metrics):
    """Long frame metric, subtask, method, percent, low, high, runs, paper; the pre-trained win rate is 50 by definition."""
    rows = []
    for metric in METRICS:
        for method in METHODS:
            values, models = runs(metrics, method, metric)
            for subtask in ROWS:
                if metric == "understanding_win_rate" and method == "pretrained":
                    summary = (0.5, float("nan"), float("nan"), metrics["seed"].nunique())
                else:
                    summary = mean_over_runs(values[subtask], models)
                paper = paper_cell("janus_pro_7b", method, subtask, metric) if method in PAPER_METHODS else float("nan")
                mean, low, high, count = summary
                rows.append((metric, subtask, method, 100 * mean, 100 * low, 100 * high, count, paper))
    return pd.DataFrame(rows, columns=["metric", "subtask", "method", "percent", "low", "high", "runs", "paper"])


def cell(row):
    if pd.isna(row["percent"]):
        return "–"
    return f"{row['percent']:.1f}" + ("" if pd.isna(row["low"]) else f" [{row['low']:.1f}, {row['high']:.1f}]")


def layout(data):
    """The printed table: metrics x subtasks down, our methods and the paper's across."""
    ours = data.assign(cell=data.apply(cell, axis=1)).pivot(
        index=["metric", "subtask"], columns="method", values="cell"
    )
    paper = data.pivot(index=["metric", "subtask"], columns="method", values="paper")[list(PAPER_METHODS)]
    paper = paper.map(lambda percent: "–" if pd.isna(percent) else f"{percent:.1f}")
    table = pd.concat({"ours": ours[list(METHODS)], "paper": paper}, axis=1)
    table = table.loc[[(metric, subtask) for metric in METRICS for subtask in ROWS]]
    table.index = pd.MultiIndex.from_tuples([(METRICS[metric], label(subtask)) for metric, subtask in table.index])
    table.columns = pd.MultiIndex.from_tuples([(source, METHODS[method]) for source, method in table.columns])
    return table


def main():
    arguments = parse_arguments(__doc__)
    data = table_data(read_metrics(arguments.inputs))
    save_table(layout(data), data, arguments.output)


if __name__ == "__main__":
    main()
