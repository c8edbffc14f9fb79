"""Fig. 7: does a shared kernel explain the corrected false positives? With the controls that the paper lacks.

(a) how alike an example and its nearest training pair are, in prompt and in image, beside examples and random training
samples; the paper's values in grey. (b) the paper's proxy of the kernel, the similarity of prompts, for the example's own
prompt, K(Y_0, Y_u), and for another, K(Y_i, Y_u). (c) the kernel itself on the same pairs: the cosine of the gradients of
log pi(x | y). (d) kernel over proxy for all pairs with a training batch: quartiles by tenth of the proxy, and the rank
correlation. Below, what the whole training did to each example, SFT above and DPO below: the change of log pi(x | y), which the
paper shows for the first group only (e, h), of log pi(y | x) (f, i) and of the margin of the verdict (g, j). Examples of all
runs are pooled; lines are densities, bars medians.

Inputs: examples.csv and pairs.csv of the measured kernel of every run.
"""

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from scipy.stats import gaussian_kde

from replication.dynamics.summary import over_runs, proxy_correlations, read_tables
from replication.results import paper_values, parse_arguments
from replication.style import FALSE_COLOR, METHODS, PAPER_COLOR, TRUE_COLOR, WIDTH, panel, plt, save

LEAST_FOR_DENSITY = 10  # of fewer dots a density says what they do not
GROUPS = {  # how each group is called, and its colour
    "corrected": ("false positive, corrected", FALSE_COLOR),
    "not_corrected": ("false positive, kept", "#E69F00"),
    "true_positive": ("true positive, kept", TRUE_COLOR),
    "true_negative": ("true negative", "#56B4E9"),
    "unseen": ("another image's prompt", "#4D4D4D"),
}
RANDOM = "random pair"
DELTAS = {
    "delta_generation": r"$\Delta$ log $\pi(x|y)$ (nats)",
    "delta_caption": r"$\Delta$ log $\pi(y|x)$ (nats)",
    "delta_verdict": r"$\Delta$ margin of verdict (nats)",
}
MARKS = {"text": "o", "image": "s"}
TENTHS = 10


def quartiles(values):
    return dict(zip(("value", "low", "high"), np.quantile(values, [0.5, 0.25, 0.75]), strict=True))


def nearest_data(examples, pairs):
    """Frame panel, group, quantity, value, low, high, n: medians and quartiles over the SFT examples of all runs."""
    rows = []
    for group in GROUPS:
        members = examples[examples["group"] == group]
        shown = {
            ("similarity", "text"): "text_similarity",
            ("similarity", "image"): "image_similarity",
            ("proxy", "own prompt"): "text_similarity",
            ("proxy", "other prompt"): "other_text_similarity",
            ("kernel", "own prompt"): "kernel",
            ("kernel", "other prompt"): "other_kernel",
        }
        for (name, quantity), column in shown.items():
            if len(members):
                rows.append((name, group, quantity, *quartiles(members[column]).values(), len(members)))
    for quantity in MARKS:
        similarity = pairs[f"{quantity}_similarity"]
        rows.append(("similarity", RANDOM, quantity, *quartiles(similarity).values(), len(pairs)))
    return pd.DataFrame(rows, columns=["panel", "group", "quantity", "value", "low", "high", "n"])


def tenths_data(pairs):
    """Frame quantity, tenth, similarity (its mean rank in its run), value, low, high, n: quartiles of the kernel by tenth of
    each proxy, tenths of every run's pairs put together."""
    rows = []
    for quantity in MARKS:
        rank = pairs.groupby(["experiment", "seed"])[f"{quantity}_similarity"].rank(pct=True)
        tenth = np.ceil(TENTHS * rank).astype(int)
        for number, kernel in pairs["generation-generation"].groupby(tenth):
            rows.append((quantity, number, *quartiles(kernel).values(), len(kernel)))
    return pd.DataFrame(rows, columns=["quantity", "tenth", "value", "low", "high", "n"])


def errors(rows):
    return np.abs(rows[["low", "high"]].to_numpy() - rows[["value"]].to_numpy()).T


def draw_marks(axes, rows, names, quantities, offset=0.18):
    """One row per name, one mark per quantity; the second one is hollow."""
    for index, (quantity, mark) in enumerate(quantities.items()):
        shown = rows[rows["quantity"] == quantity]
        for _, row in shown.iterrows():
            color = GROUPS[row["group"]][1] if row["group"] in GROUPS else "black"
            style = {"color": color, "markerfacecolor": "white" if index else color, "markersize": 4}
            height = names.index(row["group"]) + offset * (2 * index - 1)
            axes.errorbar(row["value"], height, xerr=errors(shown.loc[[row.name]]), fmt=mark, **style)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")


def draw_paper(axes, names):
    paper = paper_values("fig7")
    places = {"corrected": "corrected", "random": RANDOM}
    for _, row in paper[paper["panel"] == "a"].iterrows():
        height = names.index(places[row["samples"]]) + (0.4 if row["quantity"] == "image" else -0.4)
        errors_of_row = [[row["value"] - row["low"]], [row["high"] - row["value"]]]
        mark = MARKS[row["quantity"]]
        axes.errorbar(row["value"], height, xerr=errors_of_row, fmt=mark, color=PAPER_COLOR, markersize=3)


def draw_tenths(axes, tenths, correlations):
    for index, (quantity, mark) in enumerate(MARKS.items()):
        rows = tenths[tenths["quantity"] == quantity]
        x = rows["tenth"] + 0.15 * (2 * index - 1)
        style = {"color": "black", "markerfacecolor": "white" if index else "black", "markersize": 3}
        axes.errorbar(x, rows["value"], yerr=errors(rows), fmt=mark, elinewidth=0.6, **style)
    axes.axhline(0, color="black", linewidth=0.6)
    shown = correlations.set_index("quantity").loc[[f"{quantity} signed" for quantity in MARKS]]
    rho = [rf"$\rho$ = {row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}]" for _, row in shown.iterrows()]
    axes.set(xlabel=f"tenth of similarity\nprompt: {rho[0]}\nimage: {rho[1]}", xticks=[1, 5, 10])


def draw_density(axes, examples, column):
    """One row per group: its dots, a bar at the median and, of enough dots, their density above."""
    low, high = examples[column].quantile([0.01, 0.99])
    margin = 0.08 * (high - low)
    grid = np.linspace(low - margin, high + margin, 200)
    for row, (group, (_, color)) in enumerate(GROUPS.items()):
        values = examples.loc[examples["group"] == group, column].to_numpy()
        if len(values) >= LEAST_FOR_DENSITY and np.ptp(values) > 0:
            density = gaussian_kde(values)(grid)
            axes.fill_between(grid, row, row - 0.75 * density / density.max(), color=color, alpha=0.35, linewidth=0)
        if len(values):
            axes.scatter(values, np.full(len(values), row + 0.12), s=3, color=color, alpha=0.5, linewidth=0)
            axes.plot([np.median(values)] * 2, [row + 0.24, row - 0.5], color=color, linewidth=1.4)
    axes.axvline(0, color="black", linewidth=0.6)
    axes.set(xlim=(grid[0], grid[-1]), ylim=(len(GROUPS) - 0.6, -0.9))
    axes.tick_params(axis="y", length=0)


def draw(tables):
    """Figure and the frame of what it shows."""
    examples, pairs = tables["examples"], tables["pairs"]
    trained = [experiment for experiment in ("sft", "dpo") if (examples["experiment"] == experiment).any()]
    sft = examples[examples["experiment"] == trained[0]]
    sft_pairs = pairs[pairs["experiment"] == trained[0]].reset_index(drop=True)
    nearest, tenths = nearest_data(sft, sft_pairs), tenths_data(sft_pairs)
    runs = proxy_correlations(sft_pairs).melt(["experiment", "seed", "model"], var_name="quantity")
    correlations = over_runs(runs, ["quantity"], "value")

    figure = plt.figure(figsize=(WIDTH, 2.6 + 2.0 * len(trained)))
    rows = figure.add_gridspec(1 + len(trained), 1, hspace=0.72, height_ratios=[1.1, *[1] * len(trained)])
    top = rows[0].subgridspec(1, 4, wspace=0.3, width_ratios=[1, 1, 1, 1.1])
    names = [*GROUPS, RANDOM]
    labels = [text for text, _ in GROUPS.values()]
    above = [figure.add_subplot(cell) for cell in top]
    draw_marks(above[0], nearest[nearest["panel"] == "similarity"], names, MARKS)
    draw_paper(above[0], names)
    above[0].set_yticks(range(len(names)), [*labels, "random training sample"])
    above[0].set_xlabel("similarity to nearest\ntraining pair")
    for axes, name, text in (
        (above[1], "proxy", "similarity of prompts\n(paper's proxy)"),
        (above[2], "kernel", "kernel (cosine)\nwith nearest pair"),
    ):
        draw_marks(axes, nearest[nearest["panel"] == name], names, {"own prompt": "o", "other prompt": "D"})
        axes.set_yticks(range(len(names)), [""] * len(names))
        axes.set_xlabel(text)
    above[2].margins(x=0.1)
    above[2].axvline(0, color="black", linewidth=0.6)
    draw_tenths(above[3], tenths, correlations)
    above[3].set_ylabel("kernel (cosine)", labelpad=10)
    above[3].yaxis.tick_right()
    above[3].yaxis.set_label_position("right")
    above[3].spines["left"].set_visible(False)
    above[3].spines["right"].set_visible(True)
    panels = list(above)
    for index, experiment in enumerate(trained):
        below = rows[1 + index].subgridspec(1, 3, wspace=0.08)
        chosen = examples[examples["experiment"] == experiment]
        for column, (delta, text) in enumerate(DELTAS.items()):
            axes = figure.add_subplot(below[column])
            draw_density(axes, chosen, delta)
            counts = [(chosen["group"] == group).sum() for group in GROUPS]
            ticks = [f"{name} ({n})" for name, n in zip(labels, counts, strict=True)]
            axes.set_yticks(range(len(GROUPS)), [""] * len(GROUPS) if column else ticks)
            axes.set_xlabel(text)
            if column == 0:
                axes.text(-0.9, 0.5, METHODS[experiment], transform=axes.transAxes, rotation=90, va="center")
            panels.append(axes)
    for axes, letter in zip(panels, "abcdefghij", strict=False):
        panel(axes, letter, -0.02)
    marks = [
        Line2D([], [], marker="o", color="black", linestyle="", markersize=4, label="prompt"),
        Line2D([], [], marker="s", color="black", markerfacecolor="white", linestyle="", markersize=4, label="image"),
        Line2D([], [], marker="o", color=PAPER_COLOR, linestyle="", markersize=3, label="the paper's"),
    ]
    prompts = [
        Line2D([], [], marker="o", color="black", linestyle="", markersize=4, label="own prompt $Y_0$"),
        Line2D(
            [], [], marker="D", color="black", markerfacecolor="white", linestyle="", markersize=4, label="other $Y_i$"
        ),
    ]
    style = {"ncols": 3, "handletextpad": 0.1, "columnspacing": 0.7, "borderaxespad": 0, "fontsize": 6}
    above[0].legend(handles=marks, loc="lower right", bbox_to_anchor=(1.0, 1.12), **style)
    above[1].legend(handles=prompts, loc="lower left", bbox_to_anchor=(0.15, 1.12), **style)
    deltas = examples[["experiment", "seed", "group", *DELTAS]]
    parts = {"nearest": nearest, "tenths": tenths, "correlation": correlations, "change": deltas}
    return figure, pd.concat([frame.assign(part=part) for part, frame in parts.items()], ignore_index=True)


def main():
    arguments = parse_arguments(__doc__)
    save(*draw(read_tables(arguments.inputs)), arguments.output)


if __name__ == "__main__":
    main()
