"""Table 1: generation, understanding and Nonunified score before and after self-improvement, ours beside the paper's.

Per cent, mean over runs with its 95 % interval (base models resampled, then the runs of each). Strata and overall are
plain means over subtasks. The paper's cells are Janus-Pro-7B's where a subtask bears the same name (T2I-CompBench++ for
overall); its understanding is a win rate only. At the paper's scale each benchmark has an overall, the paper's cells have the
tolerance of tables 5 and 6, and a cell without a run says "not run". Of several families, each has a block, beside the paper's
model that it stands for, if any.
"""

import pandas as pd

from replication.families import PAPER_MODELS, by_family, family_label, read_families
from replication.results import (
    mean_over_runs,
    of_benchmarks,
    overalls_of,
    paper_cell,
    parse_arguments,
    runs,
    strata_of,
    subtasks_of,
)
from replication.side_by_side import compared
from replication.style import METHODS, label
from replication.tables.writing import save_table

METRICS = {
    "generation": "Generation ↑",
    "understanding_win_rate": "Understanding, win rate ↑",
    "balanced_accuracy": "Understanding, balanced accuracy ↑",
    "nonunified": "Nonunified ↓",
}
PAPER_METHODS = ("pretrained", "sft", "dpo")  # the paper reports one SFT; its rule is not stated


def table_data(metrics):
    """`family_data` of one family, or of several one after the other, with a column family."""
    frames = {
        name: family_data(rows, PAPER_MODELS.get(name, "janus_pro_7b")) for name, rows in by_family(metrics).items()
    }
    if len(frames) == 1:
        return next(iter(frames.values()))
    return pd.concat([frame.assign(family=name) for name, frame in frames.items()], ignore_index=True)


def family_data(metrics, paper_model):
    """Long frame metric, subtask, method, percent, low, high, runs, paper; the pre-trained win rate is 50 by definition. At the
    paper's scale also tolerance and verdict, and no balanced accuracy, as there are no labelled scenes."""
    groups = overalls_of(metrics) if of_benchmarks(metrics) else [*strata_of(metrics), "overall"]
    shown = [*groups, *subtasks_of(metrics)]
    measured = set(metrics.loc[metrics["value"].notna(), "metric"])
    methods = [method for method in METHODS if method in PAPER_METHODS or method in set(metrics["method"])]
    rows = []
    for metric in [metric for metric in METRICS if metric in measured]:
        for method in methods:
            values, models = runs(metrics, method, metric)
            values = values.reindex(columns=shown)
            for subtask in shown:
                if metric == "understanding_win_rate" and method == "pretrained":
                    summary = (0.5, float("nan"), float("nan"), metrics["seed"].nunique())
                else:
                    summary = mean_over_runs(values[subtask], models)
                paper = paper_cell(paper_model, method, subtask, metric) if method in PAPER_METHODS else float("nan")
                mean, low, high, count = summary
                rows.append((metric, subtask, method, 100 * mean, 100 * low, 100 * high, count, paper))
    data = pd.DataFrame(rows, columns=["metric", "subtask", "method", "percent", "low", "high", "runs", "paper"])
    if not of_benchmarks(metrics):
        return data
    cells = pd.concat([compared(metrics, metric, PAPER_METHODS) for metric in data["metric"].unique()])
    keys = ["metric", "subtask", "method"]
    return data.merge(cells[[*keys, "tolerance", "verdict"]], on=keys, how="left", validate="one_to_one")


def cell(row):
    if pd.isna(row["percent"]):
        return "not run" if "verdict" in row else "–"
    return f"{row['percent']:.1f}" + ("" if pd.isna(row["low"]) else f" [{row['low']:.1f}, {row['high']:.1f}]")


def paper_text(row):
    """The paper's cell; at the paper's scale with its tolerance, and an asterisk where ours differs beyond it."""
    if pd.isna(row["paper"]):
        return "–"
    if pd.isna(row.get("tolerance")):
        return f"{row['paper']:.1f}"
    return f"{row['paper']:.1f} ± {row['tolerance']:.1f}" + ("*" if row["verdict"] == "beyond noise" else "")


def layout(data):
    """The printed table: metrics x subtasks down, for each family where there are several, our methods and the paper's across."""
    if "family" in data:
        blocks = {
            family_label(name): layout(rows.drop(columns="family")) for name, rows in data.groupby("family", sort=False)
        }
        return pd.concat(blocks).fillna("–")
    texts = data.assign(ours=data.apply(cell, axis=1), paper=data.apply(paper_text, axis=1))
    texts = texts.pivot(index=["metric", "subtask"], columns="method", values=["ours", "paper"])
    methods = list(data["method"].unique())
    columns = [("ours", method) for method in methods] + [("paper", method) for method in PAPER_METHODS]
    table = texts.loc[list(dict.fromkeys(zip(data["metric"], data["subtask"], strict=True))), columns]
    table.index = pd.MultiIndex.from_tuples([(METRICS[metric], label(subtask)) for metric, subtask in table.index])
    table.columns = pd.MultiIndex.from_tuples([(source, METHODS[method]) for source, method in table.columns])
    return table


def main():
    arguments = parse_arguments(__doc__)
    data = table_data(read_families(arguments.inputs))
    save_table(layout(data), data, arguments.output)


if __name__ == "__main__":
    main()
