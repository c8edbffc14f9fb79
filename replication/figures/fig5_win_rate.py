"""Fig. 5: does understanding improve when only generation is trained?

(a) win rate: among the pre-trained model's images on which both models' verdicts differ, the share where the
self-improved model agrees with the oracle; runs pooled, Wilson 95 % intervals, counts at the right; the diamond is the
baseline, hollow marks are the paper's SFT where a subtask bears the same name. Paired changes against the pre-trained
model, 95 % intervals over runs, and every run: (b) balanced accuracy on held-out labelled scenes, (c) false positives
on the pre-trained model's images. At the paper's scale hollow marks are the paper's SFT and DPO of the same model, each
benchmark has an overall, and there are no labelled scenes, so (b) are false positives.
"""

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from replication.results import (
    mean_over_runs,
    of_benchmarks,
    overalls_of,
    paper_cell,
    parse_arguments,
    pooled,
    read_metrics,
    rows_of,
    runs,
)
from replication.side_by_side import compared
from replication.statistics import wilson_interval
from replication.style import (
    COLORS,
    METHODS,
    PAPER_COLOR,
    WIDTH,
    label,
    panel,
    plt,
    published_edges,
    published_handles,
    save,
)

SHOWN = ("sft", "dpo")
PAPER = {"janus_pro_7b": ("o", "Janus-Pro-7B"), "show_o": ("s", "Show-o")}
CHANGES = {
    "balanced_accuracy": "change of balanced\naccuracy (points)",
    "false_positive_rate": "change of false\npositive rate (points)",
}


def win_rate_data(metrics):
    """Frame method, subtask, k, n, percent, low, high; a subtask without disagreement is at 50 without interval.

    An overall pools the counts of its subtasks (the paper's Overall is a mean of shares of very unequal n).
    """
    frames = []
    for method in SHOWN:
        counts = pooled(metrics[metrics["method"] == method], "understanding_win_rate", ["subtask"])
        overalls = []
        for name, subtasks in overalls_of(metrics).items():
            k, n = counts.loc[counts["subtask"].isin(subtasks), ["k", "n"]].sum()
            low, high = wilson_interval(k, n)
            value = k / n if n else np.nan
            overalls.append({"subtask": name, "k": k, "n": n, "value": value, "low": low, "high": high})
        frames.append(pd.concat([counts, pd.DataFrame(overalls)]).assign(method=method))
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
        if of_benchmarks(metrics):
            del changes["balanced_accuracy"]  # there are no labelled scenes
        for metric, change in changes.items():
            for subtask in rows_of(metrics):
                points = 100 * change[subtask]
                mean, low, high, _ = mean_over_runs(points, models)
                rows.append((method, metric, subtask, np.nan, mean, low, high))
                rows += [(method, metric, subtask, seed, value, np.nan, np.nan) for seed, value in points.items()]
    return pd.DataFrame(rows, columns=["method", "metric", "subtask", "seed", "change", "low", "high"])


def false_positive_change(metrics, method):
    """Newly accepted minus newly rejected mismatched images, over all mismatched ones: (0,0,1) - (0,1,0) triples."""
    counts = {name: runs(metrics, method, f"triple_{name}")[0] for name in ("000", "001", "010", "011")}
    return (counts["001"] - counts["010"]) / sum(counts.values()).replace(0, np.nan)


def published_data(metrics):
    """Frame of the paper's win rates beside ours, in per cent: model (or method), subtask, percent, at the paper's scale also
    tolerance and verdict."""
    shown = rows_of(metrics)
    if of_benchmarks(metrics):
        cells = compared(metrics, "understanding_win_rate", SHOWN).rename(columns={"paper": "percent"})
        return cells.loc[cells["subtask"].isin(shown), ["method", "subtask", "percent", "tolerance", "verdict"]]
    cells = [(model, row, paper_cell(model, "sft", row, "understanding_win_rate")) for model in PAPER for row in shown]
    return pd.DataFrame(cells, columns=["model", "subtask", "percent"])


def draw_win_rates(axes, data, paper, shown):
    for index, method in enumerate(SHOWN):
        rows = data[data["method"] == method].set_index("subtask").loc[shown]
        y = np.arange(len(shown)) + 0.32 * (index - 0.5)
        errors = np.abs(rows[["low", "high"]].to_numpy() - rows[["percent"]].to_numpy()).T
        axes.errorbar(rows["percent"], y, xerr=errors, fmt="o", color=COLORS[method], markersize=4)
        for height, k, n in zip(y, rows["k"], rows["n"], strict=True):
            axes.text(103, height, f"{k:.0f}/{n:.0f}", va="center", fontsize=6, color=COLORS[method])
    axes.scatter([50] * len(shown), range(len(shown)), marker="D", s=16, color=COLORS["pretrained"], zorder=3)
    beside = "model" if "model" in paper else "method"
    for index, (name, marker) in enumerate(zip(paper[beside].unique(), "os", strict=True)):
        rows = paper[paper[beside] == name]
        heights = rows["subtask"].map(shown.index) + 0.34 * (2 * index - 1)
        edges = published_edges(rows["verdict"]) if "verdict" in rows else PAPER_COLOR
        style = {"facecolor": "none", "edgecolor": edges, "linewidth": 0.8, "clip_on": False}
        axes.scatter(rows["percent"], heights, marker=marker, s=12, **style)
    axes.set(xlim=(0, 100), xlabel="win rate (%)")
    axes.set_yticks(range(len(shown)), [label(row) for row in shown])


def draw_changes(axes, changes, metric, shown):
    for index, method in enumerate(SHOWN):
        rows = changes[(changes["metric"] == metric) & (changes["method"] == method)]
        means, single = rows[rows["seed"].isna()], rows[rows["seed"].notna()]
        y = np.arange(len(shown)) + 0.32 * (index - 0.5)
        errors = np.abs(means[["low", "high"]].to_numpy() - means[["change"]].to_numpy()).T
        heights = single["subtask"].map(shown.index) + 0.32 * (index - 0.5) + 0.13
        axes.scatter(single["change"], heights, s=4, color=COLORS[method], alpha=0.45, linewidth=0)
        axes.errorbar(means["change"], y, xerr=errors, fmt="o", color=COLORS[method], markersize=4)
    axes.axvline(0, color="black", linewidth=0.6)
    axes.set_xlabel(CHANGES[metric])
    axes.tick_params(labelleft=False)


def draw(metrics):
    """Figure and the frame of what it shows."""
    wins, changes, paper = win_rate_data(metrics), changes_data(metrics), published_data(metrics)
    shown, quantities = rows_of(metrics), changes["metric"].unique()
    ratios, height = [1.5, *(1 for _ in quantities)], 0.37 * len(shown)
    figure, panels = plt.subplots(
        1, len(ratios), figsize=(WIDTH, height), sharey=True, width_ratios=ratios, gridspec_kw={"wspace": 0.32}
    )
    draw_win_rates(panels[0], wins, paper, shown)
    for axes, metric in zip(panels[1:], quantities, strict=True):
        draw_changes(axes, changes, metric, shown)
    for axes, letter, x in zip(panels, "abc"[: len(ratios)], (-0.38, -0.03, -0.03)[: len(ratios)], strict=True):
        for row in range(0, len(shown), 2):
            axes.axhspan(row - 0.5, row + 0.5, color="#F5F5F5", linewidth=0, zorder=0)
        axes.axhline(len(shown) - len(overalls_of(metrics)) - 0.5, color="#BFBFBF", linewidth=0.6)
        axes.set_ylim(len(shown) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x")
        panel(axes, letter, x, 1 + 0.111 / height)
    baseline = Line2D([], [], linestyle="", marker="D", markersize=4, color=COLORS["pretrained"], label="baseline")
    handles = [baseline]
    handles += [
        Line2D([], [], marker="o", markersize=4, color=COLORS[method], label=METHODS[method]) for method in SHOWN
    ]
    hollow = {"linestyle": "", "markersize": 3.5, "markerfacecolor": "none", "color": PAPER_COLOR}
    if of_benchmarks(metrics):
        handles += [
            Line2D([], [], marker=marker, label=f"paper, {METHODS[method]}", **hollow)
            for marker, method in zip("os", SHOWN, strict=True)
        ]
        handles += published_handles("o")[1:]
    else:
        handles += [
            Line2D([], [], marker=marker, label=f"paper, {name} SFT", **hollow) for marker, name in PAPER.values()
        ]
    place = (0.5, 0.88 + 0.148 / height)
    figure.legend(handles=handles, loc="lower center", bbox_to_anchor=place, ncols=len(handles), columnspacing=1.2)
    parts = {"a": wins, "a, paper": paper, "b, c": changes}
    return figure, pd.concat([frame.assign(panel=name) for name, frame in parts.items()], ignore_index=True)


def main():
    arguments = parse_arguments(__doc__)
    save(*draw(read_metrics(arguments.inputs)), arguments.output)


if __name__ == "__main__":
    main()
