"""The measured kernel: do the two branches share a direction, and does first order hold?

(a) mean cosine of the gradients of two quantities, over pairs of an example and a training sample (or of one example: own), and
(b) mean size of that cosine, beside that of random directions; before and after self-improvement. (c) the same by part of the
language model, before. (d) size of the gradients of understanding over that of generation, by part. (e) one real optimizer
step: variance of the actual changes that first order explains, and (f) share of examples whose sign it tells. (g) cheap
estimators of the kernel: correlation with the exact cosines. Means over runs, 95 % intervals resample base models, then runs.

Inputs: alignment.csv, steps.csv and estimators.csv of the measured kernel of every run.
"""

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from replication.dynamics.summary import first_order, over_runs, read_tables
from replication.results import parse_arguments
from replication.style import COLORS, METHODS, WIDTH, panel, plt, save

BLOCKS = {
    "generation-generation": "generation, generation",
    "caption-caption": "caption, caption",
    "verdict-verdict": "verdict, verdict",
    "caption-generation": "caption, generation",
    "verdict-generation": "verdict, generation",
    "own caption-generation": "own caption, generation",
    "own verdict-generation": "own verdict, generation",
    "own verdict-caption": "own verdict, caption",
}
BLOCK_COLORS = {
    "generation-generation": "#000000",
    "caption-caption": "#009E73",
    "verdict-verdict": "#CC79A7",
    "caption-generation": "#56B4E9",
    "verdict-generation": "#E69F00",
}
QUANTITIES = {"generation": "log $\\pi(x|y)$", "caption": "log $\\pi(y|x)$", "verdict": "verdict margin"}
OPTIMIZERS = {"sgd": ("SGD", "o"), "adam": ("Adam", "s")}
SIZES = {"own caption-generation": "caption", "own verdict-generation": "verdict"}


def states(alignment):
    """The rows by model state: `pretrained` (the runs of the first experiment), and each experiment after training."""
    plain = alignment[alignment["metric"] == "plain"]
    first = plain["experiment"].iloc[0]
    before = plain[(plain["model_at"] == "before") & (plain["experiment"] == first)].assign(state="pretrained")
    after = plain[plain["model_at"] == "after"]
    return pd.concat([before, after.assign(state=after["experiment"])], ignore_index=True)


def alignment_data(alignment):
    """Frame state, block, part, value, low, high, runs, quantity: cosine, absolute_cosine and ratio over runs, and what the
    size of a cosine of random directions is."""
    shown = states(alignment)
    shown = shown[(shown["group"] == "all") & ((shown["part"] == "all") | (shown["state"] == "pretrained"))]
    shown = shown.assign(random=np.sqrt(2 / (np.pi * shown["parameters"])))
    by = ["state", "block", "part"]
    columns = ("cosine", "absolute_cosine", "ratio", "random")
    return pd.concat([over_runs(shown, by, column).assign(quantity=column) for column in columns], ignore_index=True)


def first_order_data(steps):
    """Frame optimizer, scale, quantity, value, low, high, runs, measure, of the first experiment."""
    runs = first_order(steps[steps["experiment"] == steps["experiment"].iloc[0]])
    by = ["optimizer", "scale", "quantity"]
    return pd.concat([over_runs(runs, by, name).assign(measure=name) for name in ("r2", "sign_agreement")])


def estimator_data(estimators):
    """Frame block, estimator, size, value, low, high, runs: Pearson correlation with the exact cosines, first experiment."""
    shown = estimators[estimators["experiment"] == estimators["experiment"].iloc[0]]
    return over_runs(shown.fillna({"size": 0}), ["block", "estimator", "size"], "pearson")


def errors(rows):
    return np.abs(rows[["low", "high"]].to_numpy(float) - rows[["value"]].to_numpy(float)).T


def draw_blocks(axes, data, quantity):
    rows = data[(data["part"] == "all") & (data["quantity"] == quantity)]
    present = list(dict.fromkeys(rows["state"]))
    for index, state in enumerate(present):
        shown = rows[rows["state"] == state].set_index("block").loc[list(BLOCKS)]
        y = np.arange(len(BLOCKS)) + 0.25 * (index - (len(present) - 1) / 2)
        axes.errorbar(shown["value"], y, xerr=errors(shown), fmt="o", color=COLORS[state], markersize=3)
    axes.set_ylim(len(BLOCKS) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")


def parts_in(data):
    parts = [part for part in dict.fromkeys(data["part"]) if part not in ("all", "last layer")]
    layers = [part for part in parts if part.startswith("layer")]
    return ["embedding", *layers, "final norm", *(part for part in ("attention", "mlp", "norms") if part in parts)]


def draw_parts(axes, data, quantity, blocks, parts):
    rows = data[(data["state"] == "pretrained") & (data["quantity"] == quantity)]
    for index, (block, color) in enumerate(blocks.items()):
        shown = rows[rows["block"] == block].set_index("part").loc[parts]
        y = np.arange(len(parts)) + 0.14 * (index - (len(blocks) - 1) / 2)
        axes.errorbar(shown["value"], y, xerr=errors(shown), fmt="o", color=color, markersize=3)
    axes.set_yticks(range(len(parts)), parts)
    axes.set(ylim=(len(parts) - 0.5, -0.5), xscale="log")
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")


def draw_first_order(axes, data, measure):
    scales = sorted(data["scale"].unique())
    names = [(quantity, scale) for quantity in QUANTITIES for scale in scales]
    for index, (optimizer, (_, mark)) in enumerate(OPTIMIZERS.items()):
        rows = data[(data["measure"] == measure) & (data["optimizer"] == optimizer)]
        shown = rows.set_index(["quantity", "scale"]).loc[names]
        y = np.arange(len(names)) + 0.3 * (index - 0.5)
        style = {"color": "black", "markerfacecolor": "white" if index else "black", "markersize": 3.5}
        axes.errorbar(shown["value"], y, xerr=errors(shown), fmt=mark, **style)
    axes.set_yticks(range(len(names)), [f"{QUANTITIES[quantity]}, {scale} ×" for quantity, scale in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")


def draw_estimators(axes, data):
    sizes = sorted(data.loc[data["estimator"] == "random projection", "size"].unique())
    for block, color in BLOCK_COLORS.items():
        rows = data[data["block"] == block]
        projected = rows[rows["estimator"] == "random projection"].set_index("size").loc[sizes]
        axes.errorbar(
            range(len(sizes)), projected["value"], yerr=errors(projected), fmt="o-", color=color, markersize=3
        )
        layer = rows[rows["estimator"] == "last layer"]
        axes.errorbar([len(sizes)], layer["value"], yerr=errors(layer), fmt="D", color=color, markersize=3)
    axes.set_xticks(range(len(sizes) + 1), [*(f"{size:.0f}" for size in sizes), "last\nlayer"])
    axes.set(ylabel="correlation with exact", xlabel="random projection to", ylim=(-0.05, 1.02))
    axes.set_xlim(-0.5, len(sizes) + 0.4)
    axes.grid(axis="y")


def draw(tables):
    """Figure and the frame of what it shows."""
    aligned = alignment_data(tables["alignment"])
    steps, estimators = first_order_data(tables["steps"]), estimator_data(tables["estimators"])
    figure = plt.figure(figsize=(WIDTH, 5.6))
    rows = figure.add_gridspec(2, 1, hspace=0.42)
    above, below = (
        rows[0].subgridspec(1, 3, wspace=0.12),
        rows[1].subgridspec(1, 5, wspace=0.1, width_ratios=[1, 0.75, 1, 1, 1.5]),
    )
    blocks = [figure.add_subplot(above[column]) for column in range(2)]
    draw_blocks(blocks[0], aligned, "cosine")
    draw_blocks(blocks[1], aligned, "absolute_cosine")
    random = aligned.loc[(aligned["part"] == "all") & (aligned["quantity"] == "random"), "value"].iloc[0]
    blocks[0].axvline(0, color="black", linewidth=0.6)
    blocks[1].axvline(random, color="black", linewidth=0.6, linestyle=(0, (4, 2)))
    blocks[1].set(xscale="log", xlabel="mean size of cosine")
    blocks[0].set_xlabel("mean cosine")
    blocks[0].set_yticks(range(len(BLOCKS)), BLOCKS.values())
    blocks[1].set_yticks(range(len(BLOCKS)), [""] * len(BLOCKS))
    parts = parts_in(aligned)
    by_part = figure.add_subplot(above[2])
    draw_parts(by_part, aligned, "absolute_cosine", BLOCK_COLORS, parts)
    by_part.yaxis.tick_right()
    by_part.tick_params(axis="y", length=0)
    by_part.spines[["left"]].set_visible(False)
    by_part.set_xlabel("mean size of cosine, before")
    sizes = figure.add_subplot(below[0])
    ratio_colors = {block: BLOCK_COLORS[block.removeprefix("own ")] for block in SIZES}
    draw_parts(sizes, aligned, "ratio", ratio_colors, parts)
    sizes.axvline(1, color="black", linewidth=0.6)
    sizes.set_xticks([0.25, 0.5, 1, 2], ["¼", "½", "1", "2"])
    sizes.minorticks_off()
    sizes.set_xlabel("norm of gradient over\nthat of generation")
    explained = [figure.add_subplot(below[2]), figure.add_subplot(below[3])]
    draw_first_order(explained[0], steps, "r2")
    draw_first_order(explained[1], steps, "sign_agreement")
    explained[0].set_xlabel("$R^2$ of changes")
    explained[1].set_xlabel("equal signs\n(share)")
    explained[1].set_yticklabels([])
    explained[1].set_xlim(0.45, 1.03)
    cheap = figure.add_subplot(below[4])
    draw_estimators(cheap, estimators)
    cheap.yaxis.tick_right()
    cheap.yaxis.set_label_position("right")
    cheap.spines["left"].set_visible(False)
    for axes, letter in zip((*blocks, by_part, sizes, *explained, cheap), "abcdefg", strict=True):
        panel(axes, letter, -0.02)
    add_legends(figure, blocks[0], by_part, explained[0], list(dict.fromkeys(aligned["state"])))
    parts = {"alignment": aligned, "first order": steps, "estimator": estimators}
    return figure, pd.concat([frame.assign(panel=name) for name, frame in parts.items()], ignore_index=True)


def add_legends(figure, blocks, by_part, explained, present):
    def handle(color, text, mark="o", face=None):
        return Line2D(
            [], [], marker=mark, linestyle="", color=color, markerfacecolor=face or color, markersize=3.5, label=text
        )

    style = {"handletextpad": 0.1, "columnspacing": 0.8, "borderaxespad": 0, "fontsize": 6, "loc": "lower left"}
    named = [
        handle(COLORS[state], METHODS[state] if state == "pretrained" else f"after {METHODS[state]}")
        for state in present
    ]
    blocks.legend(handles=named, bbox_to_anchor=(0.12, 1.12), ncols=3, **style)
    named = [handle(color, BLOCKS[block]) for block, color in BLOCK_COLORS.items()]
    by_part.legend(handles=named, bbox_to_anchor=(0.1, 1.12), ncols=2, **style)
    named = [
        handle("black", name, mark, "white" if index else None)
        for index, (name, mark) in enumerate(OPTIMIZERS.values())
    ]
    explained.legend(handles=named, bbox_to_anchor=(0.12, 1.03), ncols=2, **style)


def main():
    arguments = parse_arguments(__doc__)
    save(*draw(read_tables(arguments.inputs)), arguments.output)


if __name__ == "__main__":
    main()
