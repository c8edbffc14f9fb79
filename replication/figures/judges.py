"""What an imperfect judge moves: each conclusion that needs a judge, by the exact oracle and by another model.

The judge is the pre-trained model that comes after the run's own in the preset's list. (a) quantities by both judges, and
generation corrected for the judge's errors on held-out labelled scenes (Rogan and Gladen); a bar is what the conclusion
says is exceeded, the words whether the interval says so, and for shares also one that resamples base models and runs. (b) the
same less the oracle's value, paired over runs. (c) the judge's own errors. 95 % intervals resample base models, then their
runs, and for corrected values the labelled scenes, too; those of shares in (a) are Wilson's; points are runs.

Inputs: metrics.csv of every run, probe_verdicts.csv of the pre-trained models, and quality_check.csv where there are any.
"""

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from replication.resampling import corrected_bootstrap, crossed_bootstrap
from replication.results import mean_over_runs, parse_arguments, read_metrics, runs
from replication.scenes import SUBTASKS
from replication.statistics import LEVEL, wilson_interval
from replication.style import METHODS, WIDTH, panel, plt, save

TRAINED = ("sft", "dpo")
QUANTITIES = {  # (name, method): what the conclusion says is exceeded, in per cent or points; None where it says nothing
    ("generation", "pretrained"): None,
    ("generation", "sft"): None,
    ("generation", "dpo"): None,
    ("gain in generation", "sft"): 0,  # paper section 4.1
    ("gain in generation", "dpo"): 0,
    ("weak generation", "pretrained"): 50,  # paper section 2.4
    ("own false positives", "pretrained"): None,
    ("win rate", "sft"): 50,  # paper section 4.1
    ("win rate", "dpo"): 50,
    ("precision of training set", "sft"): None,
    ("precision of training set", "dpo"): None,
}
COUNTED = {  # shares of counts that are pooled over subtasks and runs, and their metric
    "weak generation": "weak_generation_n",
    "own false positives": "false_positive_rate_n",
    "win rate": "understanding_win_rate",
    "precision of training set": "precision_chosen",
}
SHOWN = {  # how a value was had: what it is called, its colour, mark and height in its row
    "oracle": ("exact oracle", "black", "o", -0.22),
    "embedded": ("imperfect judge", "#E69F00", "s", 0.0),
    "corrected": ("imperfect judge, corrected", "#009E73", "D", 0.22),
}
NAMES = METHODS | {"pretrained": "pre-trained"}
ERRORS = {  # of the judge itself
    "balanced_accuracy": ("balanced accuracy", "o"),
    "false_positive_rate": ("false positive rate", "^"),
    "false_negative_rate": ("false negative rate", "v"),
}
COLUMNS = ["quantity", "method", "by", "less", "seed", "value", "low", "high", "exceeds", "holds"]


def per_run(metrics, name, method):
    """One quantity by one judge: a frame top, bottom, model over seeds, whose value is 100 sum(top) / sum(bottom)."""
    if name in COUNTED:
        rows = metrics[(metrics["method"] == method) & (metrics["metric"] == COUNTED[name])]
        rows = rows[rows["subtask"].isin(SUBTASKS) | (rows["metric"] == "precision_chosen")]
        rows = rows.assign(top=(rows["value"] * rows["n"]).round().where(rows["n"] > 0, 0))
        return rows.groupby("seed").agg(top=("top", "sum"), bottom=("n", "sum"), model=("model", "first"))
    values, models = runs(metrics, method, "generation")
    top = values["overall"] - (runs(metrics, "pretrained", "generation")[0]["overall"] if "gain" in name else 0)
    return pd.DataFrame({"top": top, "bottom": 1, "model": models}).dropna()


def mistakes(probes, seeds):
    """Whether each run's judge errs on the wrong and on the right scene of each pair: two arrays (runs, subtasks, pairs)."""
    tables = []
    for truth in (0, 1):
        rows = probes[probes["label"] == truth]
        rows = rows.assign(wrong=(rows["judge_verdict"] != truth).astype(int))
        table = rows.pivot(index="seed", columns=["subtask", "probe_id"], values="wrong").loc[seeds]
        tables.append(np.stack([table[subtask].sort_index(axis=1) for subtask in SUBTASKS], axis=1))
    return tables


def corrected_replicates(by_judge, probes):
    """Bootstrap replicates of corrected generation, and of its gain, in per cent: {(name, method): (repetitions,)}."""
    replicates = {}
    for method in ("pretrained", *TRAINED):
        scores, models = runs(by_judge, method, "generation")
        scores = scores[list(SUBTASKS)]
        drawn = 100 * corrected_bootstrap(scores.to_numpy(), *mistakes(probes, scores.index), models)
        replicates["generation", method] = drawn
        replicates["gain in generation", method] = drawn - replicates["generation", "pretrained"]
    return replicates


def conclusion_rows(frames, name, method, corrected):
    """Rows of `COLUMNS` of one quantity: its value by each judge (metrics in `frames`) and, paired over runs, less the oracle's."""
    rows, limit = [], QUANTITIES[name, method]
    for by, frame in frames.items():
        values = per_run(frame, name, method)
        each, mean = 100 * values["top"] / values["bottom"], pooled(values)
        drawn = corrected[name, method] if by == "corrected" else replicates_of(values)
        over_runs = interval = percentiles(drawn)
        if name in COUNTED:
            interval = 100 * wilson_interval(values["top"].sum(), values["bottom"].sum())
        # images of one run are no draws apart
        low, high = np.minimum(interval, over_runs)[0], np.maximum(interval, over_runs)[1]
        holds = "" if limit is None else "yes" if low > limit else "no" if high < limit else "open"
        rows.append((name, method, by, "", np.nan, mean, *interval, limit, holds))
        rows += [(name, method, by, "", seed, value, np.nan, np.nan, np.nan, "") for seed, value in each.items()]
        if by == "oracle":
            oracle = each, mean, drawn
            continue
        each, mean, drawn = each - oracle[0], mean - oracle[1], drawn - oracle[2]
        rows.append((name, method, by, "oracle", np.nan, mean, *percentiles(drawn), np.nan, ""))
        rows += [(name, method, by, "oracle", seed, value, np.nan, np.nan, np.nan, "") for seed, value in each.items()]
    return rows


def replicates_of(values):
    top, bottom = (values[[part]].to_numpy(float) for part in ("top", "bottom"))
    return 100 * crossed_bootstrap(top, bottom, values["model"], ["all"])


def pooled(values):
    return 100 * values["top"].sum() / values["bottom"].sum() if values["bottom"].sum() else np.nan


def percentiles(replicates):
    return np.nanquantile(replicates, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])


def conclusions_data(by_oracle, by_judge, probes):
    """Frame of `COLUMNS` of all quantities that the metrics speak of."""
    scores = by_judge[by_judge["metric"] != "generation"].replace({"metric": {"generation_corrected": "generation"}})
    frames, corrected = {"oracle": by_oracle, "embedded": by_judge}, corrected_replicates(by_judge, probes)
    rows = []
    for name, method in QUANTITIES:
        if len(per_run(by_oracle, name, method)):
            more = {} if name in COUNTED else {"corrected": scores}
            rows += conclusion_rows(frames | more, name, method, corrected)
    return pd.DataFrame(rows, columns=COLUMNS)


def errors_data(by_judge):
    """Frame images, error, percent, low, high: the judge on labelled scenes and, by the oracle, on each model's images."""
    rows = []
    for error in ERRORS:
        for images, method, metric in (
            ("labelled\nscenes", "pretrained", f"judge_probe_{error}"),
            *((f"images,\n{NAMES[method]}", method, f"judge_{error}_n") for method in ("pretrained", *TRAINED)),
        ):
            values, models = runs(by_judge, method, metric)
            rows.append((images, error, *mean_over_runs(100 * values["overall"], models)[:3]))
    return pd.DataFrame(rows, columns=["images", "error", "percent", "low", "high"])


def intervals(rows, value):
    return np.abs(rows[["low", "high"]].to_numpy(float) - rows[[value]].to_numpy(float)).T


def draw_values(axes, data, less):
    """Every quantity's values by judge (`less` ""), or their differences from the oracle's."""
    names = list(dict.fromkeys(zip(data["quantity"], data["method"], strict=True)))
    for by, (_, color, mark, shift) in SHOWN.items():
        rows = data[(data["by"] == by) & (data["less"] == less)]
        heights = shift + np.array([names.index(pair) for pair in zip(rows["quantity"], rows["method"], strict=True)])
        single = rows["seed"].notna().to_numpy()
        axes.scatter(rows["value"][single], heights[single] + 0.09, s=3, color=color, alpha=0.45, linewidth=0)
        means = rows[~single]
        style = {"color": color, "markersize": 3.5, "markeredgewidth": 0}
        axes.errorbar(means["value"], heights[~single], xerr=intervals(means, "value"), fmt=mark, **style)
        if not less:
            bars = means["exceeds"].notna().to_numpy()
            axes.vlines(means["exceeds"][bars], *(heights[~single][bars] + [[-0.11], [0.11]]), color="black")
    for row in range(0, len(names), 2):
        axes.axhspan(row - 0.5, row + 0.5, color="#F5F5F5", linewidth=0, zorder=0)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_yticks(range(len(names)), [f"{name}, {NAMES[method]}" for name, method in names])
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    return names


def draw_holds(axes, data, names):
    """Whether the conclusion holds by each judge, right of the axes."""
    style = {"ha": "center", "va": "center", "fontsize": 6.5, "transform": axes.get_yaxis_transform()}
    axes.text(1.17, -1.1, "bar exceeded?", **style)
    for by, x in (("oracle", 1.08), ("embedded", 1.26)):
        axes.text(x, -0.75, "oracle" if by == "oracle" else "judge", color=SHOWN[by][1], **style)
        rows = data[(data["by"] == by) & data["seed"].isna() & (data["less"] == "")]
        for holds, pair in zip(rows["holds"], zip(rows["quantity"], rows["method"], strict=True), strict=True):
            axes.text(x, names.index(pair), holds, color=SHOWN[by][1], **style)


def draw_errors(axes, errors):
    images = list(dict.fromkeys(errors["images"]))
    for index, (error, (text, mark)) in enumerate(ERRORS.items()):
        rows = errors[errors["error"] == error]
        heights = rows["images"].map(images.index) + 0.2 * (index - 1)
        style = {"color": SHOWN["embedded"][1], "markersize": 3.5, "markeredgewidth": 0, "label": text}
        axes.errorbar(rows["percent"], heights, xerr=intervals(rows, "percent"), fmt=mark, **style)
    axes.set(ylim=(len(images) - 0.5, -0.5), xlim=(-3, 103), xlabel="of the judge itself (%)")
    axes.set_yticks(range(len(images)), images)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.legend(loc="lower right", bbox_to_anchor=(1.1, 1.0), handletextpad=0.2)


def draw(by_oracle, by_judge, probes):
    """Figure and the frame of what it shows."""
    data, errors = conclusions_data(by_oracle, by_judge, probes), errors_data(by_judge)
    rows = len(data[["quantity", "method"]].drop_duplicates())
    figure = plt.figure(figsize=(WIDTH, 0.7 + 0.3 * rows))
    left, middle, right = figure.subplots(1, 3, width_ratios=[1.5, 1.1, 0.85], gridspec_kw={"wspace": 0.5})
    draw_holds(left, data, draw_values(left, data, ""))
    left.set(xlim=(-3, 103), xlabel="% (gains: points)")
    draw_values(middle, data, "oracle")
    middle.axvline(0, color="black", linewidth=0.6)
    middle.set_xlabel("less the oracle's (points)")
    middle.tick_params(labelleft=False)
    draw_errors(right, errors)
    for axes, letter, x in ((left, "a", -0.8), (middle, "b", 0.02), (right, "c", -0.5)):
        panel(axes, letter, x)
    figure.legend(
        handles=[
            Line2D([], [], marker=mark, markersize=4, color=color, label=text)
            for text, color, mark, _ in SHOWN.values()
        ],
        loc="lower center",
        bbox_to_anchor=(0.4, 0.98),
        ncols=len(SHOWN),
    )
    parts = {"a, b": data, "c": errors}
    return figure, pd.concat([frame.assign(panel=name) for name, frame in parts.items()], ignore_index=True)


def read_inputs(files):
    """Metrics by the oracle, metrics by the judge, and the verdicts on labelled scenes, with the seed of each run."""
    probes = [file for file in files if file.name == "probe_verdicts.csv"]
    metrics = [file for file in files if file not in probes]
    by_judge = read_metrics(metrics, "embedded")
    if not (by_judge["judge"] == "embedded").any():
        raise SystemExit("--inputs hold the oracle's judgements only: with one base model there is no other judge.")
    runs_of = [pd.read_csv(file.with_name("metrics.csv"), nrows=1)["seed"].item() for file in probes]
    verdicts = [pd.read_csv(file).assign(seed=seed) for file, seed in zip(probes, runs_of, strict=True)]
    return read_metrics(metrics), by_judge, pd.concat(verdicts, ignore_index=True)


def main():
    arguments = parse_arguments(__doc__)
    save(*draw(*read_inputs(arguments.inputs)), arguments.output)


if __name__ == "__main__":
    main()
