"""Curriculum: each schedule and control beside plain self-improvement, and the paper's cells where it has them.

Overall values in per cent, means over runs with 95 % intervals (base models resampled, then the runs of each); the gain in
generation over plain SFT or DPO is paired over runs. Unlocked: discarded prompts with an accepted image after a replay, all
runs together. Samples added: per run, and in per cent of the set before. The paper's cells are Janus-Pro-7B's
(T2I-CompBench++, overall); its early replay is at epoch 4 of 20, and its number of samples with only one branch strengthened is
"about 600".
"""

import numpy as np
import pandas as pd

from replication.figures.curriculum import PLAIN, changes_data, plain, read_inputs, unlocked_data
from replication.results import mean_over_runs, paper_cell, paper_values, parse_arguments, runs
from replication.style import CURRICULUM, METHODS
from replication.tables.writing import save_table

NAMES = METHODS | CURRICULUM | {"s_n_2": "SFT, N = 2"}
ROWS = {name: [method for method in CURRICULUM if plain(method) == name] for name in PLAIN}
METRICS = {
    "generation": "Generation ↑",
    "understanding_win_rate": "Win rate ↑",
    "balanced_accuracy": "Bal. accuracy ↑",
    "nonunified": "Nonunified ↓",
}
OURS = {"gain": "Gain in generation ↑", **METRICS, "unlocked": "Unlocked", "samples_added": "Samples added"}
PAPER_ABLATIONS = {"c_sft_early": "C-SFT, replay at epoch 4"}


def paper_row(method):
    """The paper's values for one method: a dict metric or samples_added -> number, nan where it has none."""
    ablations, replay = paper_values("ablations").set_index("setting"), paper_values("replay")
    cells = {metric: paper_cell("janus_pro_7b", method, "overall", metric) for metric in METRICS}
    if method in PAPER_ABLATIONS:
        cells |= ablations.loc[PAPER_ABLATIONS[method]].to_dict()
    added = replay.loc[(replay["model"] == "janus_pro_7b") & (replay["method"] == method), "samples_added"]
    return cells | {"samples_added": added.item() if len(added) else np.nan}


def table_data(metrics, phases):
    """Long frame method, quantity, value, low, high, runs, paper; `unlocked` and `discarded` count prompts of all runs, and
    `added_percent` is the share of `samples_added` in the set of the first phase, of all runs."""
    changes, unlocked = changes_data(metrics), unlocked_data(phases).set_index("method")
    rows = []
    for method in ["pretrained", *(name for first, arms in ROWS.items() for name in (first, *arms))]:
        if not (metrics["method"] == method).any():
            continue
        paper = paper_row(method)
        for metric in METRICS:
            values, models = runs(metrics, method, metric)
            summary = (0.5, np.nan, np.nan, metrics["seed"].nunique())  # the pre-trained win rate is 50 by definition
            if (metric, method) != ("understanding_win_rate", "pretrained"):
                summary = mean_over_runs(values["overall"], models)
            mean, low, high, count = summary
            rows.append((method, metric, 100 * mean, 100 * low, 100 * high, count, paper[metric]))
        chosen = (changes["method"] == method) & changes["against"].isin(PLAIN)
        gain = changes[chosen & (changes["quantity"] == "generation") & changes["seed"].isna()]
        rows += [(method, "gain", *row, np.nan) for row in gain[["change", "low", "high", "runs"]].to_numpy()]
        if method in unlocked.index:
            counts = unlocked.loc[method]
            rows.append((method, "unlocked", counts["unlocked"], np.nan, np.nan, np.nan, np.nan))
            rows.append((method, "discarded", counts["discarded"], np.nan, np.nan, np.nan, np.nan))
        if method in CURRICULUM and method != "c_sft_stages":  # whose stages are parts of the set of Algorithm 1
            later = phases[(phases["experiment"] == method) & (phases["phase"] > 1)]
            added = later.groupby("seed")["samples_added"].sum()
            before = phases.loc[(phases["experiment"] == method) & (phases["phase"] == 1), "samples"].sum()
            rows.append((method, "samples_added", added.mean(), np.nan, np.nan, len(added), paper["samples_added"]))
            rows.append((method, "added_percent", 100 * added.sum() / before, np.nan, np.nan, len(added), np.nan))
    return pd.DataFrame(rows, columns=["method", "quantity", "value", "low", "high", "runs", "paper"])


def number(value, digits=1):
    return "–" if pd.isna(value) else f"{value:,.{digits}f}"


def cell(row, sign=""):
    interval = "" if pd.isna(row["low"]) else f" [{row['low']:.1f}, {row['high']:.1f}]"
    return f"{row['value']:{sign}.1f}{interval}"


def layout(data):
    """The printed table: methods down, our columns and the paper's across."""
    cells = data.set_index(["method", "quantity"])
    replay = paper_values("replay")
    approximate = set(replay.loc[replay["status"] == "approximate", "method"])
    table = {}
    for method in data["method"].unique():
        row = cells.loc[method]
        ours = {name: cell(row.loc[name], "+" if name == "gain" else "") for name in row.index}
        if "unlocked" in ours:
            ours["unlocked"] = f"{row.loc['unlocked', 'value']:.0f} of {row.loc['discarded', 'value']:.0f}"
        if "samples_added" in ours:
            ours["samples_added"] += f" ({ours['added_percent']} %)"
        paper = {name: number(row.loc[name, "paper"]) for name in METRICS if name != "balanced_accuracy"}
        paper["samples_added"] = number(row["paper"].get("samples_added", np.nan), digits=0)
        if method in approximate:
            paper["samples_added"] = f"about {paper['samples_added']}"
        table[NAMES[method]] = {("ours", text): ours.get(name, "–") for name, text in OURS.items()}
        table[NAMES[method]] |= {("paper", OURS[name]): text for name, text in paper.items()}
    return pd.DataFrame(table).T


def main():
    arguments = parse_arguments(__doc__)
    data = table_data(*read_inputs(arguments.inputs))
    save_table(layout(data), data, arguments.output)


if __name__ == "__main__":
    main()
