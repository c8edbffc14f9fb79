"""Fig. 4: generation and unification (1 - Nonunified) before and after self-improvement, and who gains.

Narrow dark bar: the pre-trained model. Wide light bar: after SFT or DPO, with the 95 % interval over runs (base models
resampled, then the runs of each), a point per run, and the paired gain in points at the end. Third panel: a subtask's
gain in generation against its initial Nonunified score, per base model, with Spearman's correlation (the paper: 0.53).
At the paper's scale, diamonds are the paper's cells after training, with a black edge where ours differ beyond noise.
"""

import numpy as np
import pandas as pd
from matplotlib.patches import Patch

from replication.results import (
    mean_over_runs,
    of_benchmarks,
    overalls_of,
    parse_arguments,
    read_metrics,
    rows_of,
    runs,
    subtasks_of,
)
from replication.side_by_side import compared
from replication.statistics import rank_correlation_ci
from replication.style import COLORS, METHODS, WIDTH, label, panel, plt, published_edges, published_handles, save

SHOWN = ("sft", "dpo")
DIAMOND = {"marker": "D", "s": 11, "facecolor": "white", "linewidth": 0.8, "zorder": 4, "clip_on": False}
QUANTITIES = {"generation": "generation (%)", "unification": "unification (%)"}
PAPER_CORRELATION = 0.53  # paper section 4, rho(gain, Nonunified)


def values_of(metrics, method, quantity):
    """Per cent as a frame seeds x subtasks, and the models behind the seeds."""
    if quantity == "generation":
        values, models = runs(metrics, method, "generation")
        return 100 * values, models
    values, models = runs(metrics, method, "nonunified")
    return 100 * (1 - values), models


def gains_data(metrics):
    """Frame quantity, method, subtask, before, after, after_low, after_high, gain, gain_low, gain_high, runs."""
    rows = []
    for quantity in QUANTITIES:
        before, _ = values_of(metrics, "pretrained", quantity)
        for method in SHOWN:
            after, models = values_of(metrics, method, quantity)
            gain = after - before.loc[after.index]
            for subtask in rows_of(metrics):
                mean, low, high, count = mean_over_runs(after[subtask], models)
                change = mean_over_runs(gain[subtask], models)[:3]
                before_mean = before.loc[after.index, subtask].mean()
                rows.append((quantity, method, subtask, before_mean, mean, low, high, *change, count))
    columns = "quantity method subtask before after after_low after_high gain gain_low gain_high runs"
    return pd.DataFrame(rows, columns=columns.split())


def points_data(metrics):
    """Frame of single runs: quantity, method, subtask, seed, after."""
    frames = []
    for quantity in QUANTITIES:
        for method in SHOWN:
            after = values_of(metrics, method, quantity)[0][rows_of(metrics)]
            melted = after.reset_index().melt(id_vars="seed", var_name="subtask", value_name="after")
            frames.append(melted.assign(quantity=quantity, method=method))
    return pd.concat(frames, ignore_index=True)


def scatter_data(metrics):
    """Frame method, model, subtask, initial_nonunified, gain: means over the runs of one base model, in per cent."""
    frames = []
    subtasks = list(subtasks_of(metrics))
    gap, models = runs(metrics, "pretrained", "nonunified")
    before = runs(metrics, "pretrained", "generation")[0]
    for method in SHOWN:
        gain = runs(metrics, method, "generation")[0] - before
        pair = {"initial_nonunified": gap[subtasks], "gain": gain[subtasks].dropna()}
        columns = {name: 100 * frame.groupby(models).mean().stack() for name, frame in pair.items()}
        frames.append(
            pd.DataFrame(columns).dropna().rename_axis(["model", "subtask"]).reset_index().assign(method=method)
        )
    return pd.concat(frames, ignore_index=True)


def published_data(metrics):
    """Frame of the paper's cells: quantity, method, subtask, after, tolerance, verdict, in per cent."""
    generation, nonunified = (compared(metrics, metric, SHOWN) for metric in ("generation", "nonunified"))
    unification = nonunified.assign(paper=100 - nonunified["paper"])
    cells = pd.concat([generation.assign(quantity="generation"), unification.assign(quantity="unification")])
    cells = cells[cells["subtask"].isin(rows_of(metrics))].rename(columns={"paper": "after"})
    return cells[["quantity", "method", "subtask", "after", "tolerance", "verdict"]]


def draw_published(axes, cells, shown):
    for index, method in enumerate(SHOWN):
        rows = cells[cells["method"] == method]
        heights = rows["subtask"].map(shown.index) + 0.4 * (index - 0.5)
        axes.scatter(rows["after"], heights, edgecolor=published_edges(rows["verdict"]), **DIAMOND)


def draw_gains(axes, gains, points, quantity, separate):
    """`separate`: how many rows at the end are overalls."""
    shown = list(gains["subtask"].unique())
    for index, method in enumerate(SHOWN):
        rows = gains[(gains["quantity"] == quantity) & (gains["method"] == method)]
        y = np.arange(len(shown)) + 0.4 * (index - 0.5)
        light = plt.matplotlib.colors.to_rgba(COLORS[method], 0.4)
        axes.barh(y, rows["after"], 0.36, color=light, linewidth=0)
        axes.barh(y, rows["before"], 0.16, color=COLORS[method], linewidth=0)
        errors = np.abs(rows[["after_low", "after_high"]].to_numpy() - rows[["after"]].to_numpy()).T
        axes.errorbar(rows["after"], y, xerr=errors, fmt="none", ecolor="black", elinewidth=0.8)
        runs_shown = points[(points["quantity"] == quantity) & (points["method"] == method)]
        heights = runs_shown["subtask"].map(shown.index) + 0.4 * (index - 0.5) + 0.11
        axes.scatter(runs_shown["after"], heights, s=3, color="black", alpha=0.5, linewidth=0, zorder=3)
        for height, gain in zip(y, rows["gain"], strict=True):
            axes.text(102, height, f"{gain:+.1f}", va="center", fontsize=6, color=COLORS[method])
    axes.axhline(len(shown) - separate - 0.5, color="#BFBFBF", linewidth=0.6)
    axes.set(xlim=(0, 100), ylim=(len(shown) - 0.5, -0.5), xlabel=QUANTITIES[quantity])
    axes.set_yticks(range(len(shown)), [label(row) for row in shown])
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")


def draw_scatter(axes, scatter):
    """Draws the points; returns the frame method, rho, low, high."""
    correlations = []
    for method, marker in zip(SHOWN, "os", strict=True):
        rows = scatter[scatter["method"] == method]
        style = {"s": 14, "color": COLORS[method], "alpha": 0.6, "linewidth": 0}
        axes.scatter(rows["initial_nonunified"], rows["gain"], marker=marker, **style)
        correlations.append((method, *rank_correlation_ci(rows["initial_nonunified"], rows["gain"])))
    lines = [f"{METHODS[method]}: {rho:.2f} [{low:.2f}, {high:.2f}]" for method, rho, low, high in correlations]
    for index, (line, method) in enumerate(zip(lines, SHOWN, strict=True)):
        axes.text(
            0.0, 1.18 - 0.06 * index, f"$\\rho$ {line}", transform=axes.transAxes, fontsize=6.5, color=COLORS[method]
        )
    axes.text(0.0, 1.06, f"$\\rho$ paper: {PAPER_CORRELATION}", transform=axes.transAxes, fontsize=6.5)
    axes.axhline(0, color="black", linewidth=0.6)
    axes.set(xlabel="initial Nonunified score (%)", ylabel="gain in generation (points)")
    axes.grid()
    return pd.DataFrame(correlations, columns=["method", "rho", "rho_low", "rho_high"])


def draw(metrics):
    """Figure and the frame of what it shows."""
    gains, points, scatter = gains_data(metrics), points_data(metrics), scatter_data(metrics)
    shown = rows_of(metrics)
    height = 0.36 * len(shown)
    figure = plt.figure(figsize=(WIDTH, height))
    grid = figure.add_gridspec(1, 2, width_ratios=[2.5, 1], wspace=0.36)
    bars = grid[0].subgridspec(1, 2, wspace=0.25)
    left, right = figure.add_subplot(bars[0]), figure.add_subplot(bars[1])
    below = figure.add_subplot(grid[1].subgridspec(2, 1, height_ratios=[0.12, 1])[1])
    for axes, quantity in ((left, "generation"), (right, "unification")):
        draw_gains(axes, gains, points, quantity, separate=len(overalls_of(metrics)))
    right.set_yticklabels([])
    correlations = draw_scatter(below, scatter)
    handles = [Patch(color=COLORS[method], label=f"before {METHODS[method]}") for method in SHOWN]
    handles += [
        Patch(color=COLORS[method], alpha=0.4, linewidth=0, label=f"after {METHODS[method]}") for method in SHOWN
    ]
    parts = {"bars": gains, "runs": points, "scatter": scatter, "correlation": correlations}
    if of_benchmarks(metrics):
        parts["paper"] = published_data(metrics)
        for axes, quantity in ((left, "generation"), (right, "unification")):
            draw_published(axes, parts["paper"][parts["paper"]["quantity"] == quantity], shown)
        handles += published_handles("D")
    place = (0.38, 0.88 + 0.18 / height)
    figure.legend(handles=handles, loc="lower center", bbox_to_anchor=place, ncols=4, handlelength=1)
    for axes, letter, x in ((left, "a", -0.5), (right, "b", -0.02)):
        panel(axes, letter, x, 1 + 0.108 / height)
    panel(below, "c", -0.3, y=1.17)
    return figure, pd.concat([frame.assign(part=part) for part, frame in parts.items()], ignore_index=True)


def main():
    arguments = parse_arguments(__doc__)
    save(*draw(read_metrics(arguments.inputs)), arguments.output)


if __name__ == "__main__":
    main()
