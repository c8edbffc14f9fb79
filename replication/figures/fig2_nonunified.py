"""Fig. 2: how often unified models reject the images they generate themselves.

(a) our base models by subtask, (b) the paper's six models on its nine tasks (its Fig. 2c), (c) our strata: the mean over
runs with its 95 % interval, and every run. Lower is more unified. At the paper's scale, (a) has the paper's cells of the same
subtasks (its Tables 5 and 6) below ours, with an asterisk where ours differ beyond binomial noise. Of several families, (a) has a row each, base models
pooled, and (c) a mark each.
"""

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from replication.families import COLORS as FAMILY_COLORS
from replication.families import by_family, family_label, pooled_by_family, read_families
from replication.results import (
    mean_over_runs,
    of_benchmarks,
    paper_values,
    parse_arguments,
    pooled,
    runs,
    strata_of,
    subtasks_of,
)
from replication.scenes import STRATA
from replication.side_by_side import compared
from replication.style import COLORS, PAPER_COLOR, PAPER_MODELS, WIDTH, panel, plt, save, two_lines

AREA = 6.0  # square points per percentage point, the same in both grids
PAPER_LABELS = {
    "single_obj": "single object",
    "two_obj": "two objects",
    "color_attri": "color attribution",
    "color_attr": "color attr.",
}


def grid_data(metrics):
    """Frame of both bubble grids: panel, model, subtask, stratum, percent; at the paper's scale also the paper's cells of the
    same subtasks as a model "paper" of panel a, with tolerance and verdict."""
    stratum_of = subtasks_of(metrics)
    baseline = pooled_by_family(metrics[metrics["method"] == "pretrained"])
    ours = pooled(baseline, "nonunified", ["model", "subtask"]).sort_values("model")
    ours = ours.assign(panel="a", percent=100 * ours["value"], stratum=ours["subtask"].map(stratum_of))
    paper = paper_values("baseline_nonunified").rename(
        columns={"nonunified_percent": "percent", "difficulty": "stratum"}
    )
    columns = ["panel", "model", "subtask", "stratum", "percent"]
    cells = [ours[columns], paper.assign(panel="b")[columns]]
    if of_benchmarks(metrics):
        same = compared(metrics, "nonunified", ["pretrained"]).set_index("subtask").loc[list(stratum_of)].reset_index()
        same = same.assign(panel="a", model="paper", percent=same["paper"], stratum=same["subtask"].map(stratum_of))
        cells.insert(1, same[[*columns, "tolerance", "verdict"]])
    return pd.concat(cells, ignore_index=True)


def strata_data(metrics):
    """Frame of panel (c): metric, stratum, seed (nan for the mean over runs), percent, low, high, of one family."""
    rows = []
    for metric in ("nonunified", "nonunified_n"):
        values, models = runs(metrics, "pretrained", metric)
        for stratum in (*strata_of(metrics), "overall"):
            mean, low, high, _ = mean_over_runs(values[stratum], models)
            rows.append(("c", metric, stratum, np.nan, 100 * mean, 100 * low, 100 * high))
            rows += [
                ("c", metric, stratum, seed, 100 * value, np.nan, np.nan) for seed, value in values[stratum].items()
            ]
    return pd.DataFrame(rows, columns=["panel", "metric", "stratum", "seed", "percent", "low", "high"])


def draw_grid(axes, cells, color):
    stratum_of = dict(zip(cells["subtask"], cells["stratum"], strict=True))
    strata = [stratum for stratum in STRATA if stratum in stratum_of.values()]
    subtasks = sorted(stratum_of, key=lambda subtask: strata.index(stratum_of[subtask]))
    models = list(dict.fromkeys(cells["model"]))
    x, y = cells["subtask"].map(subtasks.index), cells["model"].map(models.index)
    colors = [PAPER_COLOR if model == "paper" else color for model in cells["model"]]
    axes.scatter(x, y, s=AREA * cells["percent"], color=colors, alpha=0.45, linewidth=0)
    verdicts = cells.get("verdict", [None] * len(cells))
    for column, row, percent, verdict in zip(x, y, cells["percent"], verdicts, strict=True):
        note = "*" if verdict == "beyond noise" else ""
        axes.text(column, row, f"{percent:.0f}{note}", ha="center", va="center", fontsize=6.5)
    names = [two_lines(PAPER_LABELS.get(subtask, subtask)) for subtask in subtasks]
    axes.set_xticks(range(len(subtasks)), names, fontsize=6 if len(subtasks) < 10 else 5.5)
    axes.set_yticks(range(len(models)), [PAPER_MODELS.get(model, family_label(model)) for model in models])
    axes.set(xlim=(-0.5, len(subtasks) - 0.5), ylim=(len(models) - 0.4, -0.6))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for stratum in strata:
        places = [place for place, subtask in enumerate(subtasks) if stratum_of[subtask] == stratum]
        if stratum != strata[-1]:
            axes.axvline(places[-1] + 0.5, color="#BFBFBF", linewidth=0.6)
        style = {"transform": axes.get_xaxis_transform(), "ha": "center", "va": "bottom"}
        axes.text(np.mean(places), 1.02, stratum, **style)


def draw_marks(axes, rows, groups, offset, color, filled):
    """Means with intervals, `offset` beside the places of `groups`, and every run at their left."""
    means, points = rows[rows["seed"].isna()], rows[rows["seed"].notna()]
    axes.scatter(points["stratum"].map(groups.index) + offset - 0.09, points["percent"], s=5, color=color, alpha=0.4)
    axes.errorbar(
        np.arange(len(groups)) + offset,
        means["percent"],
        yerr=np.abs(means[["low", "high"]].to_numpy() - means[["percent"]].to_numpy()).T,
        fmt="o",
        markersize=4,
        color=color,
        markerfacecolor=filled,
    )


def draw_strata(axes, strata, families):
    """Both metrics of one family, or one image per prompt of several (a dict family -> colour)."""
    groups, color = list(strata["stratum"].unique()), COLORS["pretrained"]
    marker = {"marker": "o", "color": color}
    if len(families) == 1:
        draw_marks(axes, strata[strata["metric"] == "nonunified"], groups, -0.16, color, color)
        draw_marks(axes, strata[strata["metric"] == "nonunified_n"], groups, 0.16, color, "white")
        handles = [
            Line2D([], [], **marker, markersize=4, label="1 image per prompt"),
            Line2D([], [], **marker, markersize=4, markerfacecolor="white", label="all images"),
            Line2D([], [], **marker, markersize=2, linestyle="", alpha=0.4, label="one run"),
        ]
    else:
        single = strata[strata["metric"] == "nonunified"]
        for place, (name, own) in zip(np.linspace(-0.25, 0.33, len(families)), families.items(), strict=True):
            draw_marks(axes, single[single["family"] == name], groups, place, own, own)
        handles = [
            Line2D([], [], marker="o", markersize=4, color=own, label=family_label(name))
            for name, own in families.items()
        ]
    axes.set_xticks(range(len(groups)), groups, fontsize=6.5)
    axes.set(ylabel="Nonunified score (%)", xlim=(-0.5, len(groups) - 0.5))
    axes.set_ylim(0, 1.3 * strata["percent"].max() + 1)  # room for the legend
    axes.grid(axis="y")
    axes.legend(handles=handles, loc="upper left", borderaxespad=0)


def draw(metrics):
    """Figure and the frame of what it shows."""
    families = by_family(metrics)
    cells = grid_data(metrics)
    strata = pd.concat([strata_data(rows).assign(family=name) for name, rows in families.items()], ignore_index=True)
    bases = cells.loc[cells["panel"] == "a", "model"].nunique()
    across = max(2.6, 0.27 * cells.loc[cells["panel"] == "a", "subtask"].nunique())
    figure = plt.figure(figsize=(WIDTH, 1.35 + 0.36 * (bases + len(PAPER_MODELS))))
    grid = figure.add_gridspec(
        2, 2, width_ratios=[across, 1], height_ratios=[bases, len(PAPER_MODELS)], wspace=0.2, hspace=0.5
    )
    top, bottom, right = (figure.add_subplot(cell) for cell in (grid[0, 0], grid[1, 0], grid[:, 1]))
    draw_grid(top, cells[cells["panel"] == "a"], COLORS["pretrained"])
    draw_grid(bottom, cells[cells["panel"] == "b"], PAPER_COLOR)
    draw_strata(right, strata, dict(zip(families, FAMILY_COLORS, strict=False)))
    for axes, letter in ((top, "a"), (bottom, "b")):
        panel(axes, letter, x=-0.13)
    panel(right, "c", x=-0.28)
    shown = strata if len(families) > 1 else strata.drop(columns="family")
    return figure, pd.concat([cells, shown], ignore_index=True)


def main():
    arguments = parse_arguments(__doc__)
    save(*draw(read_families(arguments.inputs)), arguments.output)


if __name__ == "__main__":
    main()
