"""Fig. 3: who is to blame when a model rejects its own image: the share that the judge rejects too (weak generation).

(a) by subtask, runs pooled, and (b) by stratum and base model: all images of the pre-trained models, with Wilson 95 %
intervals and the counts k/n; (c) the paper's values, checked by Qwen2.5-VL-72B and by humans (its Figs. 3 and 9). At the
paper's scale those of the model that was run stand in (a), too, where the subtask is the same. Of several families, (a) and (b) show each, base
models pooled.
"""

import numpy as np
import pandas as pd

from replication.families import by_family, family_label, pooled_by_family, read_families
from replication.results import (
    is_group,
    of_benchmarks,
    paper_values,
    parse_arguments,
    pooled,
    strata_of,
    subtasks_of,
)
from replication.side_by_side import is_of_the_paper, paper_model
from replication.style import PAPER_COLOR, PAPER_MODELS, WIDTH, panel, plt, save, two_lines

SHADES = ("#9A9A9A", "#BDBDBD", "#DDDDDD", "#F0DDB0", "#BFDDF0")
PAPER_TASKS = {"single_obj": "single object", "texture": "texture", "physics": "physics"}
PAPER_NAMES = {"janus_pro_7b": "janus_pro", "show_o": "show_o"}  # in its Figure 3, of the models of its tables
SAME_TASKS = {"single_object": "single_obj", "texture": "texture"}  # of the benchmarks, and the paper's names


def weak_generation_data(metrics):
    """Frame panel, group, model, k, n, percent, low, high of all three panels."""
    baseline = pooled_by_family(metrics[metrics["method"] == "pretrained"])
    by_stratum = baseline[~is_group(baseline["subtask"])]
    by_stratum = by_stratum.assign(stratum=by_stratum["subtask"].map(subtasks_of(metrics))).sort_values(
        "model", kind="stable"
    )
    judge = baseline.loc[baseline["metric"] == "weak_generation_n", "judge"].iloc[0]
    of_each = (by_stratum, ["model", "subtask"]) if len(by_family(metrics)) > 1 else (baseline, ["subtask"])
    a = pooled(of_each[0], "weak_generation_n", of_each[1]).rename(columns={"subtask": "group"}).assign(panel="a")
    b = pooled(by_stratum, "weak_generation_n", ["model", "stratum"]).rename(columns={"stratum": "group"})
    ours = pd.concat([a, b.assign(panel="b")])
    ours[["percent", "low", "high"]] = 100 * ours[["value", "low", "high"]]
    c = paper_values("weak_generation").rename(columns={"subtask": "group", "weak_generation_percent": "percent"})
    columns = ["panel", "group", "model", "checked_by", "k", "n", "percent", "low", "high"]
    return pd.concat([ours.assign(checked_by=judge), c.assign(panel="c")], ignore_index=True)[columns]


def draw_bars(axes, rows, x, width, color, rotation=0):
    """Bars with Wilson intervals; k/n stands upright or `rotation` degrees turned at the foot of each bar."""
    errors = np.abs(rows[["low", "high"]].to_numpy() - rows[["percent"]].to_numpy()).T
    axes.bar(x, rows["percent"], width, color=color, linewidth=0)
    axes.errorbar(x, rows["percent"], yerr=errors, fmt="none", ecolor="black", elinewidth=0.8)
    for position, k, n in zip(x, rows["k"], rows["n"], strict=True):
        axes.text(position, 2, f"{k:.0f}/{n:.0f}", ha="center", va="bottom", rotation=rotation, fontsize=6)


def draw_groups(axes, rows, groups):
    """Bars of every model side by side at each of `groups`."""
    models = list(dict.fromkeys(rows["model"]))
    width = 0.84 / len(models)
    for index, model in enumerate(models):
        bars = rows[rows["model"] == model].set_index("group").loc[groups]
        x = np.arange(len(groups)) + (index - (len(models) - 1) / 2) * width
        draw_bars(axes, bars, x, 0.92 * width, SHADES[index % len(SHADES)], rotation=90)
        axes.bar(0, 0, color=SHADES[index % len(SHADES)], label=family_label(model))


def draw_published(axes, rows, checked_by, x):
    """The paper's values at `x`, a mark for those who checked."""
    qwen = checked_by == "qwen"
    axes.scatter(
        x,
        rows["percent"],
        marker="o" if qwen else "D",
        s=16 if qwen else 12,
        facecolor="none",
        edgecolor="black" if qwen else PAPER_COLOR,
        linewidth=0.8,
        label=f"checked by {'Qwen' if qwen else 'people'}",
        clip_on=False,
    )


def draw(metrics):
    """Figure and the frame of what it shows."""
    data = weak_generation_data(metrics)
    figure = plt.figure(figsize=(WIDTH, 4.1))
    grid = figure.add_gridspec(2, 2, width_ratios=[1.25, 1], hspace=0.5, wspace=0.22)
    top, left, right = (figure.add_subplot(cell) for cell in (grid[0, :], grid[1, 0], grid[1, 1]))

    strata, subtasks, several = strata_of(metrics), list(subtasks_of(metrics)), len(by_family(metrics)) > 1
    rows = data[data["panel"] == "a"]
    if several:
        draw_groups(top, rows, subtasks)
    else:
        draw_bars(top, rows.set_index("group").loc[subtasks], range(len(subtasks)), 0.62, SHADES[1])
    top.set_xticks(range(len(subtasks)), [two_lines(subtask) for subtask in subtasks])

    draw_groups(left, data[data["panel"] == "b"], list(strata))
    (top if several else left).legend(
        loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=5, handlelength=1, columnspacing=1
    )
    left.set_xticks(range(len(strata)), strata)

    rows = data[data["panel"] == "c"]
    offsets = {model: 0.13 * (index - 2.5) for index, model in enumerate(PAPER_MODELS)}
    for checked_by, place in (("qwen", -0.08), ("human", 0.08)):
        points = rows[rows["checked_by"] == checked_by]
        x = points["group"].map(list(PAPER_TASKS).index) + points["model"].map(offsets)
        draw_published(right, points, checked_by, x)
        if of_benchmarks(metrics) and is_of_the_paper(metrics):
            same = (
                points[points["model"] == PAPER_NAMES[paper_model(metrics)]]
                .set_index("group")
                .loc[list(SAME_TASKS.values())]
            )
            draw_published(top, same, checked_by, [subtasks.index(name) + place for name in SAME_TASKS])
    for group in range(len(PAPER_TASKS)):
        for model, offset in offsets.items():
            name = PAPER_MODELS[model]
            right.text(group + offset, 2, name, ha="center", va="bottom", rotation=90, fontsize=5.5, color="#606060")
    right.set_xticks(range(len(PAPER_TASKS)), PAPER_TASKS.values())
    right.set_xlim(-0.5, len(PAPER_TASKS) - 0.5)
    right.legend(loc="lower center", bbox_to_anchor=(0.53, 1.0), ncols=2, handletextpad=0, columnspacing=0.6)

    for axes, letter, x in ((top, "a", -0.075), (left, "b", -0.14), (right, "c", -0.17)):
        axes.set(ylim=(0, 100), yticks=range(0, 101, 25))
        axes.axhline(50, color="black", linestyle=(0, (4, 3)), linewidth=0.7)
        axes.grid(axis="y")
        axes.tick_params(axis="x", length=0, pad=3)
        panel(axes, letter, x)
    for axes in (top, left):
        axes.set_ylabel("weak generation (%)")
    right.set_ylabel("the paper's values (%)")
    return figure, data


def main():
    arguments = parse_arguments(__doc__)
    save(*draw(read_families(arguments.inputs)), arguments.output)


if __name__ == "__main__":
    main()
