"""The measured kernel in numbers, one column per kind of self-improvement (paper section 6, Fig. 7).

Means over runs with 95 % intervals that resample base models, then runs. Cosines are of gradients; "size" is the mean of
their absolute values. One step is predicted by first order in its length. AUC: how often the log-likelihood of a corrected
false positive falls more than that of one not corrected; counts pool runs.
"""

import pandas as pd

from replication.dynamics.summary import (
    corrected_from_others,
    first_order,
    over_runs,
    proxy_correlations,
    read_tables,
    shares,
    step_and_training,
)
from replication.results import parse_arguments
from replication.style import METHODS
from replication.tables.writing import save_table

BLOCKS = {
    "generation-generation": "generation with generation",
    "caption-caption": "caption with caption",
    "verdict-verdict": "verdict with verdict",
    "caption-generation": "caption with generation",
    "verdict-generation": "verdict with generation",
    "own caption-generation": "own caption with own generation",
    "own verdict-generation": "own verdict with own generation",
}
QUANTITIES = {"generation": "log p(image)", "caption": "log p(caption)", "verdict": "verdict margin"}
STATES = {  # model_at, metric: how the table calls it
    ("before", "plain"): "before",
    ("before", "adam"): "before, in Adam's metric",
    ("after", "plain"): "after",
}
GROUPS = {
    "corrected": "false positives, corrected",
    "not_corrected": "false positives, not corrected",
    "true_positive": "true positives, kept",
    "true_negative": "true negatives",
    "unseen": "images with another prompt",
}
COLUMNS = ["experiment", "section", "row", "value", "low", "high", "runs"]


def alignment_rows(alignment):
    whole = alignment[(alignment["part"] == "all") & (alignment["group"] == "all")]
    frames = []
    for (at, metric), state in STATES.items():
        shown = whole[(whole["model_at"] == at) & (whole["metric"] == metric) & whole["block"].isin(BLOCKS)]
        for column, text in (("cosine", "Cosine"), ("absolute_cosine", "Size of cosine")):
            found = over_runs(shown, ["experiment", "block"], column)
            frames.append(found.assign(section=f"{text}, {state}", row=found["block"].map(BLOCKS)))
    own = whole[
        (whole["metric"] == "plain") & whole["block"].isin(["own caption-generation", "own verdict-generation"])
    ]
    found = over_runs(own, ["experiment", "model_at", "block"], "ratio")
    names = found["block"].map({"own caption-generation": "caption", "own verdict-generation": "verdict"})
    row = names + " over generation, " + found["model_at"]
    return [*frames, found.assign(section="Ratio of gradient norms", row=row)]


def step_rows(steps, examples):
    frames, runs = [], first_order(steps)
    for column, text in (("r2", "variance explained"), ("sign_agreement", "equal signs")):
        found = over_runs(runs, ["experiment", "optimizer", "scale", "quantity"], column)
        optimizer = found["optimizer"].map({"sgd": "SGD", "adam": "Adam"})
        row = found["quantity"].map(QUANTITIES) + ", " + optimizer + ", " + found["scale"].map("{:g} ×".format)
        frames.append(found.assign(section=f"One step, {text}", row=row))
    found = over_runs(step_and_training(steps, examples), ["experiment", "quantity"], "rho")
    section = "Rank correlation, one predicted step and whole training"
    return [*frames, found.assign(section=section, row=found["quantity"].map(QUANTITIES))]


def proxy_rows(pairs):
    runs = proxy_correlations(pairs).melt(["experiment", "seed", "model"], var_name="quantity")
    found = over_runs(runs, ["experiment", "quantity"], "value")
    proxy, target = found["quantity"].str.rsplit(" ", n=1).str[0], found["quantity"].str.rsplit(" ", n=1).str[1]
    row = proxy.replace("both", "both, ranks added") + ", " + target.map({"signed": "kernel", "size": "size of kernel"})
    return [found.assign(section="Rank correlation, similarity and kernel", row=row)]


def group_rows(examples):
    found = corrected_from_others(examples)
    row = "change of " + found["quantity"].map(QUANTITIES)
    frames = [found.rename(columns={"auc": "value"}).assign(section="AUC, corrected or not", row=row)]
    counts = shares(examples)
    for column, text in (("falls", "log p(image) falls"), ("same_sign", "it and log p(caption) change alike")):
        value = counts[column] / counts["examples"]
        frames.append(counts.assign(value=value, section=f"Share where {text}", row=counts["group"].map(GROUPS)))
    return frames


def estimator_rows(estimators):
    found = over_runs(estimators.fillna({"size": 0}), ["experiment", "block", "estimator", "size"], "pearson")
    size = found["size"].map(lambda size: f" to {size:.0f}" if size else "")
    row = found["block"].map(BLOCKS) + ", " + found["estimator"] + size
    return [found.assign(section="Correlation of estimate and kernel", row=row)]


def table_data(tables):
    """Long frame of COLUMNS and examples (of the shares): every number of the table."""
    frames = [
        *alignment_rows(tables["alignment"]),
        *step_rows(tables["steps"], tables["examples"]),
        *proxy_rows(tables["pairs"]),
        *group_rows(tables["examples"]),
        *estimator_rows(tables["estimators"]),
    ]
    return pd.concat(frames, ignore_index=True)[[*COLUMNS, "examples", "corrected", "others"]]


def cell(row):
    digits = 3 if "osine" in row["section"] else 2
    text = f"{row['value']:.{digits}f}"
    if row["examples"] > 0:
        return f"{row['value'] * row['examples']:.0f} of {row['examples']:.0f}"
    if row["corrected"] > 0:
        text = f"{text} ({row['corrected']:.0f} : {row['others']:.0f})"
    return text if pd.isna(row["low"]) else f"{text} [{row['low']:.{digits}f}, {row['high']:.{digits}f}]"


def layout(data):
    """The printed table: sections and rows down, kinds of self-improvement across."""
    cells = {}
    for _, row in data.iterrows():
        cells.setdefault((row["section"], row["row"]), {})[METHODS[row["experiment"]]] = cell(row)
    return pd.DataFrame.from_dict(cells, orient="index").fillna("–")


def main():
    arguments = parse_arguments(__doc__)
    data = table_data(read_tables(arguments.inputs))
    save_table(layout(data), data, arguments.output)


if __name__ == "__main__":
    main()
