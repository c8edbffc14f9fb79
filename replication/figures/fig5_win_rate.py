"""Fig. 5: does understanding improve when only generation is trained?

(a) win rate: among the pre-trained model's images on which both models' verdicts differ, the share where the
self-improved model agrees with the oracle; runs pooled, Wilson 95 % intervals, counts at the right; the diamond is the
baseline, hollow marks are the paper's SFT where a subtask bears the same name. Paired changes against the pre-trained
model, 95 % intervals over runs, and every run: (b) balanced accuracy on held-out labelled scenes, (c) false positives
on the pre-trained model's images.
"""

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from replication.results import mean_over_runs, paper_cell, parse_arguments, pooled, read_metrics, runs
from replication.scenes import SUBTASKS
from replication.statistics import wilson_interval
from replication.style import COLORS, METHODS, PAPER_COLOR, WIDTH, label, panel, plt, save

SHOWN = ("sft", "dpo")
ROWS = (*SUBTASKS, "overall")
PAPER = {"janus_pro_7b": ("o", "Janus-Pro-7B"), "show_o": ("s", "Show-o")}
CHANGES = {
    "balanced_accuracy": "change of balanced\naccuracy (points)",
    "false_positive_rate": "change of false\npositive rate (points)",
}


def win_rate_data(metrics):
    """Frame method, subtask, k, n, percent, low, high; a subtask without disagreement is at 50 without interval.

    "overall" pools the counts of all subtasks (the paper's Overall is a mean of shares of very unequal n).
    """
    frames = []
    for method in SHOWN:
        counts = pooled(metrics[metrics["method"] == method], "understanding_win_rate", ["subtask"])
        k, n = counts["k"].sum(), counts["n"].sum()
        low, high = wilson_interval(k, n)
        overall = {"subtask": "overall", "k": k, "n": n, "value": k / n if n else np.nan, "low": low, "high": high}
        frames.append(pd.concat([counts, pd.DataFrame([overall])]).assign(method=method))
    data = pd.concat(frames, ignore_index=True)
    data["percent"] = 100 * data["value"].fillna(0.5)
    data[["low", "high"]] *= 100
    return data[["method", "subtask", "k", "n", "percent", "low", "high"]]


def changes_data(metrics):
    """Frame method, metric, subtask, seed (nan for the mean over runs), change, low, high, in points."""
    rows = []
    for method in SHOWN:
        accuracy, models = runs(metrics, method, "balanced_accuracy")
        changes = {
            "balanced_accuracy": accuracy - runs(metrics, "pretrained", "balanced_accuracy")[0].loc[accuracy.index],
            "false_positive_rate": false_positive_change(metrics, method),
        }
        for metric, change in changes.items():
            for subtask in ROWS:
                points = 100 * change[subtask]
                mean, low, high, _ = mean_over_runs(points, models)
                rows.append((method, metric, subtask, np.nan, mean, low, high))
                rows += [(method, metric, subtask, seed, value, np.nan, np.nan) for seed, value in points.items()]
    return pd.DataFrame(rows, columns=["method", "metric", "subtask", "seed", "change", "low", "high"])


def false_positive_change(metrics, method):
    """Newly accepted minus newly rejected mismatched images, over all mismatched ones: (0,0,1) - (0,1,0) triples."""
    counts = {name: runs(metrics, method, f"triple_{name}")[0] for name in ("000", "001", "010", "011")}
    return (counts["001"] - counts["010"]) / sum(counts.values()).replace(0, np.nan)


def draw_win_rates(axes, data):
    paper = []
    for index, method in enumerate(SHOWN):
        rows = data[data["method"] == method].set_index("subtask").loc[list(ROWS)]
        y = np.arange(len(ROWS)) + 0.32 * (index - 0.5)
        errors = np.abs(rows[["low", "high"]].to_numpy() - rows[["percent"]].to_numpy()).T
        axes.errorbar(rows["percent"], y, xerr=errors, fmt="o", color=COLORS[method], markersize=4)
        for height, k, n in zip(y, rows["k"], rows["n"], strict=True):
            axes.text(103, height, f"{k:.0f}/{n:.0f}", va="center", fontsize=6, color=COLORS[method])
    axes.scatter([50] * len(ROWS), range(len(ROWS)), marker="D", s=16, color=COLORS["pretrained"], zorder=3)
    for index, (model, (marker, _)) in enumerate(PAPER.items()):
        for row, subtask in enumerate(ROWS):
            percent = paper_cell(model, "sft", subtask, "understanding_win_rate")
            paper.append((model, subtask, percent))
            height = row + 0.34 * (2 * index - 1)
            style = {"facecolor": "none", "edgecolor": PAPER_COLOR, "linewidth": 0.8, "clip_on": False}
            axes.scatter(percent, height, marker=marker, s=12, **style)
    axes.set(xlim=(0, 100), xlabel="win rate (%)")
    axes.set_yticks(range(len(ROWS)), [label(row) for row in ROWS])
    return pd.DataFrame(paper, columns=["model", "subtask", "percent"])


def draw_changes(axes, changes, metric):
    for index, method in enumerate(SHOWN):
        rows = changes[(changes["metric"] == metric) & (changes["method"] == method)]
        means, single = rows[rows["seed"].isna()], rows[rows["seed"].notna()]
        y = np.arange(len(ROWS)) + 0.32 * (index - 0.5)
        errors = np.abs(means[["low", "high"]].to_numpy() - means[["change"]].to_numpy()).T
        heights = single["subtask"].map(ROWS.index) + 0.32 * (index - 0.5) + 0.13
        axes.scatter(single["change"], heights, s=4, color=COLORS[method], alpha=0.45, linewidth=0)
        axes.errorbar(means["change"], y, xerr=errors, fmt="o", color=COLORS[method], markersize=4)
    axes.axvline(0, color="black", linewidth=0.6)
    axes.set_xlabel(CHANGES[metric])
    axes.tick_params(labelleft=False)


def draw(metrics):
    """Figure and the frame of what it shows."""
    wins, changes = win_rate_data(metrics), changes_data(metrics)
    figure, panels = plt.subplots(
        1, 3, figsize=(WIDTH, 3.7), sharey=True, width_ratios=[1.5, 1, 1], gridspec_kw={"wspace": 0.32}
    )
    paper = draw_win_rates(panels[0], wins)
    for axes, metric in zip(panels[1:], CHANGES, strict=True):
        draw_changes(axes, changes, metric)
    for axes, letter, x in zip(panels, "abc", (-0.38, -0.03, -0.03), strict=True):
        for row in range(0, len(ROWS), 2):
            axes.axhspan(row - 0.5, row + 0.5, color="#F5F5F5", linewidth=0, zorder=0)
        axes.axhline(len(ROWS) - 1.5, color="#BFBFBF", linewidth=0.6)
        axes.set_ylim(len(ROWS) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x")
        panel(axes, letter, x)
    baseline = Line2D([], [], linestyle="", marker="D", markersize=4, color=COLORS["pretrained"], label="baseline")
    handles = [baseline]
    handles += [
        Line2D([], [], marker="o", markersize=4, color=COLORS[method], label=METHODS[method]) for method in SHOWN
    ]
    hollow = {"linestyle": "", "markersize": 3.5, "markerfacecolor": "none", "color": PAPER_COLOR}
    handles += [Line2D([], [], marker=marker, label=f"paper, {name} SFT", **hollow) for marker, name in PAPER.values()]
    figure.legend(
        handles=handles, loc="lower center", bbox_to_anchor=(0.5, 0.92), ncols=len(handles), columnspacing=1.2
    )
    parts = {"a": wins, "a, paper": paper, "b, c": changes}
    return figure, pd.concat([frame.assign(panel=name) for name, frame in parts.items()], ignore_index=True)


def main():
    arguments = parse_arguments(__doc__)
    save(*draw(read_metrics(arguments.inputs)), arguments.output)


if __name__ == "__main__":
    main()
