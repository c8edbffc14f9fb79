"""Ablations: self-improvement under every setting that was run, and the paper's cells where it has them.

Overall values in per cent and training samples per 100 prompts, means over runs with 95 % intervals (base models resampled,
then the runs of each). The paper's cells are Janus-Pro-7B's (T2I-CompBench++, overall); its samples are of about 6,000 prompts.
A row that the paper has stands here even where it was not run.
"""

import numpy as np
import pandas as pd

from replication.figures.sensitivity import (
    GUIDED_NAMES,
    SAMPLES,
    SETTINGS,
    by_candidates,
    changes_data,
    guidance_data,
    paper_samples,
    read_inputs,
)
from replication.results import mean_over_runs, paper_values, parse_arguments, runs
from replication.tables.writing import save_table

METRICS = {
    "generation": "Generation ↑",
    "understanding_win_rate": "Win rate ↑",
    "balanced_accuracy": "Bal. accuracy ↑",
    "nonunified": "Nonunified ↓",
}
COLUMNS = {**METRICS, SAMPLES: "Samples per 100 prompts"}
PRETRAINED, NUMBER, GUIDANCE = "pre-trained", "candidates per prompt", "guidance at evaluation"
PAPER_SETTINGS = {  # of paper_values/ablations.csv
    (PRETRAINED, ""): "pre-trained",
    (NUMBER, "10"): "SFT, LLM only",
    ("trained modules", "language model"): "SFT, LLM only",
    ("trained modules", "+ aligner"): "SFT, LLM + projector",
    ("trained modules", "+ image embeddings, head"): "SFT, LLM + projector + vision tower",
}


def table_rows(metrics, changes, supervision):
    """(setting, choice) -> method of every row in order, None for one that only the paper has."""
    numbers = by_candidates(changes, supervision).drop_duplicates("method").set_index("candidates")["method"].to_dict()
    of_paper = dict.fromkeys(paper_samples().index)
    rows = {(PRETRAINED, ""): "pretrained"}
    rows |= {(NUMBER, str(number)): method for number, method in sorted((of_paper | numbers).items())}
    for setting, choices in SETTINGS.items():
        run = {(setting, name): method for method, name in choices.items() if method in set(changes["method"])}
        known = {(setting, name): run.get((setting, name)) for name in choices.values()}
        kept = {row: method for row, method in known.items() if method or row in PAPER_SETTINGS}
        rows |= kept if len(kept) > 1 else {}
    guided = guidance_data(metrics)
    for method, scale, evaluated in guided[["method", "scale", "evaluated"]].drop_duplicates().to_numpy():
        rows[GUIDANCE, f"{scale}, {GUIDED_NAMES[method]}"] = evaluated
    return rows


def paper_cells(row):
    """The paper's values of one row: a dict of COLUMNS, nan where it has none."""
    cells = dict.fromkeys(COLUMNS, np.nan)
    if row in PAPER_SETTINGS:
        cells |= paper_values("ablations").set_index("setting").loc[PAPER_SETTINGS[row]].to_dict()
    setting, choice = row
    if setting == NUMBER:
        cells[SAMPLES] = paper_samples().get(int(choice), np.nan)
    return cells


def table_data(metrics, supervision):
    """Long frame setting, choice, method, quantity, value, low, high, runs, paper."""
    changes, rows = changes_data(metrics, supervision), []
    samples = changes[(changes["quantity"] == SAMPLES) & changes["seed"].isna()].set_index("method")
    for row, method in table_rows(metrics, changes, supervision).items():
        paper = paper_cells(row)
        for quantity in COLUMNS:
            summary = (np.nan, np.nan, np.nan, 0)
            if quantity == SAMPLES:
                if method in samples.index:
                    summary = samples.loc[method, ["value", "low", "high", "runs"]]
            elif (quantity, method) == ("understanding_win_rate", "pretrained"):
                summary = (50.0, np.nan, np.nan, metrics["seed"].nunique())  # by definition
            elif method:
                values, models = runs(metrics, method, quantity)
                mean, low, high, number = mean_over_runs(100 * values["overall"], models)
                summary = (mean, *((low, high) if number > 1 else (np.nan, np.nan)), number)
            rows.append((*row, method, quantity, *summary, paper[quantity]))
    columns = ["setting", "choice", "method", "quantity", "value", "low", "high", "runs", "paper"]
    return pd.DataFrame(rows, columns=columns)


def cell(row):
    if pd.isna(row["value"]):
        return "–"
    interval = "" if pd.isna(row["low"]) else f" [{row['low']:.1f}, {row['high']:.1f}]"
    return f"{row['value']:.1f}{interval}"


def layout(data):
    """The printed table: settings down, our columns and the paper's across."""
    keys = ["setting", "choice"]
    order = pd.MultiIndex.from_frame(data[keys].drop_duplicates(), names=[None, None])
    ours = data.assign(cell=data.apply(cell, axis=1)).pivot(index=keys, columns="quantity", values="cell")
    paper = data.pivot(index=keys, columns="quantity", values="paper")
    paper = paper.map(lambda value: "–" if pd.isna(value) else f"{value:.1f}")
    stated = [name for name in COLUMNS if name != "balanced_accuracy"]
    table = pd.concat({"ours": ours[list(COLUMNS)], "paper": paper[stated]}, axis=1).loc[order]
    table.index = order
    table.columns = pd.MultiIndex.from_tuples([(source, COLUMNS[name]) for source, name in table.columns])
    return table


def main():
    arguments = parse_arguments(__doc__)
    data = table_data(*read_inputs(arguments.inputs))
    save_table(layout(data), data, arguments.output)


if __name__ == "__main__":
    main()
