"""The paper's cells beside ours, one by one: for tables 5 and 6, and for figures and Table 1 at the paper's scale.

In per cent. A difference is within noise when it is at most 1.96 standard errors of a difference of two shares, with the paper's
images (one per prompt) and ours as independent draws; scores between 0 and 1 vary no more than shares do, so that this is the most
that they may differ by chance. The paper does not state over how many changed verdicts its win rates are, so those get as many as
ours have. A cell without a run says "not run".
"""

import numpy as np
import pandas as pd

from replication.families import family_of
from replication.results import BENCHMARKS, paper_values
from replication.style import CURRICULUM, METHODS

RUNS_OF = {"janus_pro_7b": "janus_pro_7b", "show_o": "showo_512"}  # the models that the paper trains, in configs/model
SHOWN_METHODS = {name: {**METHODS, **CURRICULUM}[name] for name in ("pretrained", "sft", "c_sft", "dpo", "c_dpo")}
METRICS = {"generation": "Gen ↑", "understanding_win_rate": "Und ↑", "nonunified": "Non ↓"}
WIN_RATE = "understanding_win_rate"


def tolerance(first, first_n, second, second_n):
    """1.96 standard errors of the difference of two shares (lists over subtasks, whose mean is compared), as a share.

    Both are taken as draws of one share, estimated with one success and one failure more, so that 0 and 1 have noise, too.
    """
    first_n, second_n = np.asarray(first_n, float), np.asarray(second_n, float)
    pooled = (np.multiply(first, first_n) + np.multiply(second, second_n) + 1) / (first_n + second_n + 2)
    variances = pooled * (1 - pooled) * (1 / first_n + 1 / second_n)
    return 1.96 * float(np.sqrt(variances.sum())) / len(variances)


def paper_model(metrics):
    """The paper's model that the runs are of; Janus-Pro-7B, without a run, where they are of none."""
    families = set(family_of(metrics["model"]))
    return next((model for model, family in RUNS_OF.items() if family in families), "janus_pro_7b")


def is_of_the_paper(metrics):
    """Whether any of the runs is of a model that the paper trains."""
    return family_of(metrics["model"]).isin(RUNS_OF.values()).any()


def ours(metrics, method, subtask, metric):
    """(value, n) over all runs: their mean, and the images of all; (nan, 0) where there is none."""
    rows = metrics[(metrics[["method", "subtask", "metric"]] == [method, subtask, metric]).all(axis=1)]
    return (rows["value"].mean(), rows["n"].sum()) if len(rows) else (np.nan, 0)


def verdict(row):
    """What a cell says: "not run", "within noise" or "beyond noise"; a win rate without any changed verdict says "no change"."""
    if np.isnan(row["ours"]):
        return "not run"
    if np.isnan(row["tolerance"]):
        return "no change"
    return "within noise" if abs(row["difference"]) <= row["tolerance"] else "beyond noise"


def table_data(metrics, benchmark):
    """Long frame method, subtask, metric, paper, ours, n, difference, tolerance, verdict of one benchmark and `paper_model`, in
    per cent; the subtask "overall" is the mean over the others. unparsed, of Nonunified scores by written verdicts: the share of
    these that said no score, and so rejected the image."""
    subtasks, model = BENCHMARKS[benchmark], paper_model(metrics)
    paper = paper_values("results")
    paper = paper[(paper["benchmark"] == benchmark) & (paper["model"] == model)]
    metrics = metrics[family_of(metrics["model"]) == RUNS_OF[model]]
    paper = paper.set_index(["method", "subtask", "metric"])["percent"] / 100
    rows = []
    for method in SHOWN_METHODS:
        for metric in METRICS:
            names = {name: name for name in subtasks} | {"overall": f"overall_{benchmark}"}
            cells = {name: ours(metrics, method, group, metric) for name, group in names.items()}
            if (method, metric) == ("pretrained", WIN_RATE) and (metrics["method"] == method).any():
                cells = dict.fromkeys(cells, (0.5, 0))  # no verdict has changed
            for name, (value, n) in cells.items():
                members = list(subtasks) if name == "overall" else [name]
                numbers = [cells[member][1] for member in members]
                published = [subtasks[member][1] for member in members]
                shown = paper[method, "overall" if name == "overall" else subtasks[name][0], metric]
                allowed = np.nan
                if min(numbers) > 0:
                    allowed = tolerance(
                        [paper[method, subtasks[member][0], metric] for member in members],
                        numbers if metric == WIN_RATE else published,
                        [cells[member][0] for member in members],
                        numbers,
                    )
                percent = (100 * share for share in (shown, value, value - shown, allowed))
                group = f"overall_{benchmark}" if name == "overall" else name
                unparsed = ours(metrics, method, group, "unparsed")[0] if metric == "nonunified" else np.nan
                rows.append((method, name, metric, *percent, n, 100 * unparsed))
    columns = ["method", "subtask", "metric", "paper", "ours", "difference", "tolerance", "n", "unparsed"]
    data = pd.DataFrame(rows, columns=columns)
    return data.assign(verdict=data.apply(verdict, axis=1))


def compared(metrics, metric, methods):
    """The rows of `table_data` of one metric and some methods, of both benchmarks; each overall has its benchmark's name. Without
    the paper's cells where the runs are of none of its models."""
    tables = {benchmark: table_data(metrics, benchmark) for benchmark in BENCHMARKS}
    cells = pd.concat(
        [table.replace({"subtask": {"overall": f"overall_{name}"}}) for name, table in tables.items()],
        ignore_index=True,
    )
    if not is_of_the_paper(metrics):
        cells["paper"] = np.nan
    return cells[(cells["metric"] == metric) & cells["method"].isin(methods)].reset_index(drop=True)
