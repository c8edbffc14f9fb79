"""Are the base models credible unified models? One column per base, the criterion beside it, pass or fail in each cell.

Inputs: the quality.csv (metric, subtask, value, n) of each base model, in a folder named `base=<number>`.
"""

import re

import pandas as pd
from scipy.stats import chi2_contingency

from replication.results import GROUPS, parse_arguments
from replication.scenes import STRATA, STRATUM_OF
from replication.style import label
from replication.tables.writing import save_table

# Criteria of a credible unified model, in shares: understanding sound, generation clearly between chance and
# saturation, tokenizer not the limit, verdicts neither all yes nor all no.
LIMITS = {  # assumption: ours, the paper has none
    ("understanding_balanced_accuracy", "overall"): (0.85, 1.0),
    ("generation", "overall"): (0.25, 0.65),
    ("reconstruction", "overall"): (0.97, 1.0),
    ("own_verdict_yes_share", "overall"): (0.01, 0.99),
}
LABELS = {
    "understanding_balanced_accuracy": "Understanding, balanced accuracy (%)",
    "generation": "Generation, own images right (%)",
    "reconstruction": "Tokenizer reconstruction (%)",
    "own_verdict_yes_share": "Own images accepted (%)",
    "strata_differ": "Generation differs between strata (p)",
}
SHOWN = [(metric, group) for metric in list(LABELS)[:3] for group in GROUPS] + [("own_verdict_yes_share", "overall")]
SIGNIFICANCE = 0.05


def read_quality(files):
    """Frame base, metric, subtask, value, n of all base models."""
    frames = []
    for file in files:
        base = re.search(r"base=(\d+)", str(file))
        if base is None:
            raise SystemExit(f"{file} lies in no folder named base=<number>, so its base model is unknown.")
        frames.append(pd.read_csv(file).assign(base=int(base[1])))
    return pd.concat(frames, ignore_index=True)


def strata_p_value(quality):
    """Chi-square test that the strata of one base have the same share of right images."""
    rows = quality[(quality["metric"] == "generation") & quality["subtask"].isin(STRATUM_OF)]
    right = (rows["value"] * rows["n"]).groupby(rows["subtask"].map(STRATUM_OF)).sum()
    wrong = ((1 - rows["value"]) * rows["n"]).groupby(rows["subtask"].map(STRATUM_OF)).sum()
    return chi2_contingency([right[list(STRATA)], wrong[list(STRATA)]]).pvalue


def table_data(quality):
    """Long frame base, metric, subtask, value, n, low, high (limits of the criterion), passes (nan without criterion)."""
    rows = quality[[pair in SHOWN for pair in zip(quality["metric"], quality["subtask"], strict=True)]]
    tests = [(base, "strata_differ", "", strata_p_value(group)) for base, group in quality.groupby("base")]
    tests = pd.DataFrame(tests, columns=["base", "metric", "subtask", "value"])
    data = pd.concat([rows, tests], ignore_index=True)[["base", "metric", "subtask", "value", "n"]]
    limits = {**LIMITS, ("strata_differ", ""): (0.0, SIGNIFICANCE)}
    pairs = list(zip(data["metric"], data["subtask"], strict=True))
    data["low"], data["high"] = ([limits.get(pair, (None, None))[side] for pair in pairs] for side in (0, 1))
    passes = data["value"].between(data["low"].astype(float), data["high"].astype(float))
    return data.assign(passes=passes.astype(object).where(data["low"].notna()))


def layout(data):
    """The printed table: quantities down, criterion and bases across."""
    columns = {"criterion": {}}
    for row in data.itertuples():
        key = (LABELS[row.metric], label(row.subtask))
        factor, digits = (1, 3) if row.metric == "strata_differ" else (100, 1)
        mark = "" if pd.isna(row.passes) else " pass" if row.passes else " FAIL"
        value = "<0.001" if digits == 3 and row.value < 0.001 else f"{factor * row.value:.{digits}f}"
        columns.setdefault(f"base {row.base}", {})[key] = value + mark
        columns["criterion"][key] = criterion(row.low, row.high, factor)
    keys = [(LABELS[metric], label(group)) for metric, group in [*SHOWN, ("strata_differ", "")]]
    return pd.DataFrame(columns).loc[keys]


def criterion(low, high, factor):
    if pd.isna(low):
        return ""
    if high == 1.0:
        return f"at least {factor * low:g}"
    return f"below {factor * high:g}" if low == 0 else f"{factor * low:g} to {factor * high:g}"


def main():
    arguments = parse_arguments(__doc__)
    data = table_data(read_quality(arguments.inputs))
    save_table(layout(data), data, arguments.output)


if __name__ == "__main__":
    main()
