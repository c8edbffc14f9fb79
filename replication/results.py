"""What figures and tables share: reading metrics CSVs, summaries over runs, and the paper's own numbers."""

import argparse
import re
from pathlib import Path

import numpy as np
import pandas as pd

from replication import benchmark_prompts, scenes
from replication.metrics import JUDGES
from replication.scenes import STRATA
from replication.statistics import cluster_bootstrap_ci, wilson_interval, without_rounding_errors

GROUPS = (*STRATA, "overall")

BENCHMARKS = {  # subtasks of the paper's scale in the paper's order, each with the paper's name and its images (paper 1.4)
    "t2i_compbench": {name: (name, 300) for name in ("texture", "shape", "color", "spatial", "non_spatial", "complex")},
    "geneval": {
        "single_object": ("single", 80),
        "two_object": ("two", 99),
        "counting": ("counting", 80),
        "colors": ("colors", 94),
        "position": ("position", 100),
        "color_attr": ("colorattr", 100),
    },
}

# Subtasks and the paper's (benchmark, name in results.csv): those of the embedded world where they bear the same name (the
# paper's colour, position and science subtasks have no counterpart there), and those of the benchmarks.
PAPER_SUBTASKS = {
    "single_object": ("geneval", "single"),
    "two_objects": ("geneval", "two"),
    "color_attribution": ("geneval", "colorattr"),
    "shape": ("t2i_compbench", "shape"),
    "texture": ("t2i_compbench", "texture"),
    "spatial": ("t2i_compbench", "spatial"),
    "counting": ("geneval", "counting"),
    "non_spatial": ("t2i_compbench", "non_spatial"),
    "complex": ("t2i_compbench", "complex"),
    "overall": ("t2i_compbench", "overall"),
}
for _benchmark, _subtasks in BENCHMARKS.items():
    PAPER_SUBTASKS |= {name: (_benchmark, theirs) for name, (theirs, _) in _subtasks.items()}
    PAPER_SUBTASKS[f"overall_{_benchmark}"] = (_benchmark, "overall")


def parse_arguments(description):
    """Command line of every figure and table: `--inputs FILE... --output PREFIX`."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--inputs", required=True, nargs="+", type=Path)
    parser.add_argument("--output", required=True, type=Path, help="path without suffix")
    return parser.parse_args()


def read_metrics(files, judge="oracle"):
    """One frame of all metrics rows of all runs, without what judges other than `judge` say. Rows of the same run, subtask and
    metric must not repeat."""
    metrics = pd.concat([pd.read_csv(file) for file in files], ignore_index=True)
    if "judge" not in metrics or metrics["judge"].isna().any():
        raise SystemExit("A file of --inputs has no column judge: an earlier version wrote it; make it again.")
    metrics = metrics[~metrics["judge"].isin({*JUDGES} - {judge})].reset_index(drop=True)
    if metrics.duplicated(["experiment", "seed", "subtask", "metric"]).any():
        raise SystemExit("The same run is given twice in --inputs; name each metrics.csv once.")
    return metrics


def read_of_runs(files):
    """One frame of CSV files that do not name their run, with the experiment and the seed that their paths name."""
    frames = []
    for file in files:
        run = re.search(r"([a-z0-9_]+)/seed=(\d+)/", file.as_posix())
        if run is None:
            raise SystemExit(f"{file} lies in no folder <experiment>/seed=<number>, so its run is unknown.")
        frames.append(pd.read_csv(file).assign(experiment=run[1], seed=int(run[2])))
    return pd.concat(frames, ignore_index=True)


def is_group(subtasks):
    """Where a series of metrics.csv's column subtask names a stratum or an overall."""
    return subtasks.isin(GROUPS) | subtasks.str.startswith("overall_")


def of_benchmarks(metrics):
    """Whether the prompts are those of the paper's benchmarks, each of which has an overall of its own."""
    return metrics["subtask"].str.startswith("overall_").any()


def strata_of(metrics):
    """{stratum: its subtasks} of what was evaluated, from easy to hard; subtasks in the order in which they were.

    Raises SystemExit for a subtask of no known stratum.
    """
    names = metrics.loc[~is_group(metrics["subtask"]), "subtask"].unique()
    stratum_of = scenes.STRATUM_OF
    if of_benchmarks(metrics):
        strata = benchmark_prompts.STRATUM_OF
        stratum_of = {name: strata[benchmark] for benchmark, subtasks in BENCHMARKS.items() for name in subtasks}
    unknown = [name for name in names if name not in stratum_of]
    if unknown:
        raise SystemExit(f"No stratum is known for {', '.join(unknown)}; add them to replication/results.py.")
    members = {stratum: [name for name in names if stratum_of[name] == stratum] for stratum in STRATA}
    return {stratum: subtasks for stratum, subtasks in members.items() if subtasks}


def subtasks_of(metrics):
    """{subtask: its stratum} of what was evaluated, from easy to hard."""
    return {subtask: stratum for stratum, subtasks in strata_of(metrics).items() for subtask in subtasks}


def overalls_of(metrics):
    """{overall: the subtasks that it is the mean of}: one of each benchmark, as in the paper, or one of the embedded world."""
    subtasks = list(subtasks_of(metrics))
    if not of_benchmarks(metrics):
        return {"overall": subtasks}
    members = {
        benchmark: [name for name in subtasks if PAPER_SUBTASKS[name][0] == benchmark] for benchmark in BENCHMARKS
    }
    return {f"overall_{benchmark}": names for benchmark, names in members.items() if names}


def rows_of(metrics):
    """What figures and tables show of each model, in their order: the subtasks from easy to hard, then the overalls."""
    return [*subtasks_of(metrics), *overalls_of(metrics)]


def paper_values(name):
    """The paper's own numbers, in per cent: a frame read from `paper_values/<name>.csv`."""
    return pd.read_csv(Path(__file__).parent / "paper_values" / f"{name}.csv")


def paper_cell(model, method, subtask, metric):
    """One cell of the paper's result tables in per cent, nan where it has none."""
    table = paper_values("results")
    benchmark, name = PAPER_SUBTASKS.get(subtask, (None, None))
    keys = {"benchmark": benchmark, "model": model, "method": method, "subtask": name, "metric": metric}
    cell = table.loc[(table[list(keys)] == pd.Series(keys)).all(axis=1), "percent"]
    return cell.item() if len(cell) else np.nan


def runs(metrics, method, metric):
    """Values of `metric` as a frame (seeds x subtasks, strata and overall), and each seed's model as a series."""
    rows = metrics[(metrics["method"] == method) & (metrics["metric"] == metric)]
    return rows.pivot(index="seed", columns="subtask", values="value"), rows.groupby("seed")["model"].first()


def mean_over_runs(values, models):
    """(mean, low, high, number of runs) of one series over seeds; runs of one base model are one cluster."""
    values = values.dropna()
    if values.empty:
        return np.nan, np.nan, np.nan, 0
    summary = without_rounding_errors([values.mean(), *cluster_bootstrap_ci(values, models[values.index])])
    return *map(float, summary), len(values)


def pooled(metrics, metric, by):
    """Counts of a share pooled over runs, per group of the columns `by`: a frame with k, n, value, low, high (Wilson).

    The subtask column may be replaced by the stratum beforehand; strata and overall rows are left out.
    """
    rows = metrics[(metrics["metric"] == metric) & ~is_group(metrics["subtask"])]
    rows = rows.assign(k=(rows["value"] * rows["n"]).round().where(rows["n"] > 0, 0))
    counts = rows.groupby(by, sort=False)[["k", "n"]].sum().reset_index()
    intervals = [wilson_interval(k, n) for k, n in zip(counts["k"], counts["n"], strict=True)]
    low, high = np.array(intervals).reshape(-1, 2).T
    return counts.assign(value=counts["k"] / counts["n"].where(counts["n"] > 0), low=low, high=high)
