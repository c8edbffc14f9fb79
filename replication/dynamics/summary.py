"""The measured kernel over runs: what figures and tables show of the tables of `replication.dynamics.kernel`.

Everything is computed run by run, because the pairs of a run share examples; means over runs carry 95 % intervals that
resample base models, then runs.
"""

import numpy as np
import pandas as pd

from replication.results import mean_over_runs
from replication.statistics import auc_ci

RUN = ["experiment", "seed", "model"]
PROXIES = {"text_similarity": "text", "image_similarity": "image"}


def read_tables(files):
    """The tables of all runs: a dict examples, pairs, ... -> frame."""
    names = dict.fromkeys(file.stem for file in files)
    return {name: pd.concat([pd.read_csv(file) for file in files if file.stem == name]) for name in names}


def over_runs(runs, by, column):
    """Mean over runs with its interval: a frame of the columns `by`, value, low, high, runs, from one row per run."""
    rows = []
    for key, group in runs.groupby(by, sort=False):
        values = group.set_index("seed")[column]
        rows.append((*key, *mean_over_runs(values, group.set_index("seed")["model"])))
    return pd.DataFrame(rows, columns=[*by, "value", "low", "high", "runs"])


def per_run(frame, by, summarise):
    """`summarise`, a dict of numbers, of the rows of each run and group of `by`: a frame of RUN, `by` and these numbers."""
    rows = [
        dict(zip([*RUN, *by], key, strict=True)) | summarise(group)
        for key, group in frame.groupby([*RUN, *by], sort=False)
    ]
    return pd.DataFrame(rows)


def first_order(steps):
    """How well first order predicts one step, per run, optimizer, scale and quantity: r2 and sign_agreement."""

    def summarise(group):
        rest = ((group["actual"] - group["predicted"]) ** 2).sum()
        spread = ((group["actual"] - group["actual"].mean()) ** 2).sum()
        same = (np.sign(group["actual"]) == np.sign(group["predicted"])).mean()
        return {"r2": 1 - rest / spread, "sign_agreement": same}

    return per_run(steps, ["optimizer", "scale", "quantity"], summarise)


def proxy_correlations(pairs, block="generation-generation"):
    """Spearman correlation, per run, of the paper's proxies with the kernel of a pair and with its size."""

    def summarise(group):
        kernel = group[block]
        both = sum(group[column].rank() for column in PROXIES)
        proxies = {name: group[column] for column, name in PROXIES.items()} | {"both": both}
        return {
            f"{name} {target}": proxy.corr(values, "spearman")
            for name, proxy in proxies.items()
            for target, values in (("signed", kernel), ("size", kernel.abs()))
        }

    return per_run(pairs, [], summarise)


def step_and_training(steps, examples):
    """Spearman correlation, per run and quantity, of one predicted step of Adam with what the whole training did."""
    predicted = steps[(steps["optimizer"] == "adam") & (steps["scale"] == steps["scale"].min())]
    total = examples.assign(example=examples.groupby(RUN).cumcount()).melt(
        [*RUN, "example"], [name for name in examples if name.startswith("delta_")], "quantity", "total"
    )
    total["quantity"] = total["quantity"].str.removeprefix("delta_")
    both = predicted.merge(total, on=[*RUN, "example", "quantity"], validate="one_to_one")
    return per_run(both, ["quantity"], lambda group: {"rho": group["predicted"].corr(group["total"], "spearman")})


def corrected_from_others(examples):
    """How often the log-likelihood of a corrected false positive falls more than that of one that was not: a frame
    experiment, quantity, auc, low, high, corrected, others. The paper's explanation asks for more than one half."""
    rows = []
    for experiment, group in examples[examples["group"].isin(["corrected", "not_corrected"])].groupby("experiment"):
        corrected = group["group"] == "corrected"
        for quantity in ("generation", "caption"):
            auc = auc_ci(-group[f"delta_{quantity}"], corrected, group["seed"], group["model"])
            rows.append((experiment, quantity, *auc, corrected.sum(), (~corrected).sum()))
    return pd.DataFrame(rows, columns=["experiment", "quantity", "auc", "low", "high", "corrected", "others"])


def shares(examples):
    """Per experiment and group, over all runs: the number of examples, how many have a falling delta of generation, and how
    many a delta of generation and of caption likelihood of one sign (the paper's prediction)."""
    falls = examples["delta_generation"] < 0
    same = np.sign(examples["delta_generation"]) == np.sign(examples["delta_caption"])
    grouped = examples.assign(falls=falls, same_sign=same).groupby(["experiment", "group"], sort=False)
    return grouped.agg(examples=("falls", "size"), falls=("falls", "sum"), same_sign=("same_sign", "sum")).reset_index()
