"""Interventions: the same training with the supposed cause of co-improvement taken away (paper section 6; the paper has none).

Rows are arms of SFT on own verdicts (above) and on swapped ones (below), columns what they change against the pre-trained model.
The plain training is drawn dashed through its arms; a mark is filled where an arm differs from it, run by run, with an interval
off 0. Means over runs with 95 % intervals that resample base models, then runs; win rates pool runs, with Wilson intervals.

Inputs: metrics.csv of every arm and run, of the plain trainings and of the pre-trained models.
"""

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from replication.figures.co_degradation import change_of, errors
from replication.metrics import triple_counts
from replication.results import mean_over_runs, parse_arguments, pooled, read_metrics, runs
from replication.statistics import difference_interval
from replication.style import COLORS, WIDTH, panel, plt, save

PLAIN = {"sft": ("SFT, own verdicts", COLORS["sft"]), "sft_swapped": ("SFT, swapped verdicts", "#CC79A7")}
ARMS = {  # what an arm leaves of the shared cause: the middle of its name, and how it is called
    "": "all of it shared and trained",
    "separate": "separate copies",
    "orthogonal": r"steps $\perp$ verdicts",
    "orthogonal_caption": r"steps $\perp$ log $\pi(y|x)$",
    "lower": "lower layers alone",
    "upper": "upper layers alone",
    "attention": "attention alone",
    "mlp": "feed-forward alone",
    "no_embedding": "all but the embedding",
}
CHANGES = {
    "generation": "generation",
    "nonunified": "Nonunified\nscore",  # lower is better
    "balanced_accuracy": "balanced\naccuracy",
    "probe_false_positive_rate": "false\npositives",  # lower is better
}
CHANGED, WIN_RATE = "changed verdicts", "win rate"
TITLES = CHANGES | {CHANGED: "changed\nverdicts", WIN_RATE: WIN_RATE}
DASHED = (0, (4, 2))


def arms_of(plain, metrics):
    """Arms of one training that were run, in the order of ARMS: a dict method -> label."""
    end = plain.removeprefix("sft")
    names = {f"i_{kind}{end}" if kind else plain: label for kind, label in ARMS.items()}
    return {name: label for name, label in names.items() if name in set(metrics["method"])}


def changed_share(metrics, method):
    """Share of the verdicts on the pre-trained model's images that differ, in per cent: a series over seeds; and the models."""
    triples = [triple for triple in triple_counts([], [], []) if triple[1] != triple[2]]
    counts = [runs(metrics, method, "triple_{}{}{}".format(*triple))[0]["overall"] for triple in triples]
    rows = metrics[(metrics["method"] == method) & (metrics["metric"] == "triple_000")]
    images = rows[rows["subtask"] == "overall"].set_index("seed")["n"]
    return 100 * sum(counts) / images, rows.groupby("seed")["model"].first()


def values_of(metrics, method, metric):
    return changed_share(metrics, method) if metric == CHANGED else change_of(metrics, method, metric)


def means_data(metrics):
    """Frame plain, method, metric, seed (nan for the mean over runs), value, low, high, and for means difference,
    difference_low, difference_high: from the plain training, over paired runs. Intervals need two runs."""
    rows = []
    for plain in PLAIN:
        for method in arms_of(plain, metrics):
            for metric in (*CHANGES, CHANGED):
                values, models = values_of(metrics, method, metric)
                difference = values - values_of(metrics, plain, metric)[0]
                summaries = [mean_over_runs(one, models) for one in (values, difference)]
                if len(values) == 1:
                    summaries = [(mean, np.nan, np.nan, 1) for mean, *_ in summaries]
                rows.append((plain, method, metric, np.nan, *summaries[0][:3], *summaries[1][:3]))
                rows += [(plain, method, metric, seed, value, *[np.nan] * 5) for seed, value in values.items()]
    columns = ["plain", "method", "metric", "seed", "value", "low", "high"]
    return pd.DataFrame(rows, columns=[*columns, "difference", "difference_low", "difference_high"])


def win_rate_data(metrics):
    """Frame method, k, n, value, low, high, in per cent: changed verdicts that are right, pooled over subtasks and runs; and
    difference_low and difference_high, Newcombe's interval of the difference from the plain training."""
    wins = pooled(metrics[metrics["method"] != "pretrained"], "understanding_win_rate", ["method"]).set_index("method")
    wins[["value", "low", "high"]] *= 100
    for plain in PLAIN:
        for method in arms_of(plain, metrics):
            counts = wins.loc[method, ["k", "n"]], wins.loc[plain, ["k", "n"]]
            interval = difference_interval(*counts[0], *counts[1]) if counts[0]["n"] and counts[1]["n"] else np.nan
            wins.loc[method, ["difference_low", "difference_high"]] = 100 * interval
    return wins.reset_index()


def color_of(method):
    return PLAIN["sft_swapped" if method.endswith("_swapped") else "sft"][1]


def draw_mark(axes, row, height):
    """The mark of an arm, with its interval; `row` is a frame of one row."""
    (mean,) = row.to_dict("records")
    color, is_plain = color_of(mean["method"]), mean["method"] in PLAIN
    apart = mean["difference_low"] > 0 or mean["difference_high"] < 0
    style = {"color": color, "markerfacecolor": color if apart or is_plain else "white", "markersize": 4.5}
    axes.errorbar(
        mean["value"], height, xerr=errors(row, "value"), fmt="s" if is_plain else "o", clip_on=False, **style
    )


def draw_means(axes, rows, heights):
    for method, height in heights.items():
        own = rows[rows["method"] == method]
        dots = own.loc[own["seed"].notna(), "value"]
        axes.scatter(dots, [height + 0.3] * len(dots), s=4, color=color_of(method), alpha=0.5, linewidth=0)
        draw_mark(axes, own[own["seed"].isna()], height)
    axes.axvline(0, color="black", linewidth=0.6)
    axes.margins(x=0.12)


def draw_plain(axes, rows, members):
    """The mean of the plain training, through the rows of its arms (heights `members`)."""
    (plain,) = rows.loc[rows["method"].isin(PLAIN) & rows["seed"].isna(), ["method", "value"]].to_numpy()
    ends = min(members) - 0.4, max(members) + 0.5
    axes.plot([plain[1]] * 2, ends, color=color_of(plain[0]), linewidth=0.8, linestyle=DASHED, zorder=0)


def draw_wins(axes, wins, heights):
    axes.text(106, -0.15, "of", va="center", fontsize=6)
    for method, height in heights.items():
        row = wins[wins["method"] == method]
        axes.text(106, height, f"{row['n'].item():.0f}", va="center", fontsize=6)
        if row["n"].item():
            draw_mark(axes, row, height)
    axes.axvline(50, color="black", linewidth=0.6)
    axes.set(xlim=(0, 100), xticks=[0, 50, 100])


def draw(metrics):
    """Figure and the frame of what it shows."""
    means, wins = means_data(metrics), win_rate_data(metrics)
    heights, labels, headings, height = {}, [], {}, 0
    for plain, (heading, color) in PLAIN.items():
        arms = arms_of(plain, metrics)
        if arms:
            headings[height - 0.15] = heading, color
            height += 1
        for method, label in arms.items():
            heights[method], height = height, height + 1
            labels.append(label)
    size = 0.235 * height  # of a panel, in inches
    figure, panels = plt.subplots(
        1, len(TITLES), sharey=True, figsize=(WIDTH, size / 0.77), gridspec_kw={"wspace": 0.16}
    )
    for axes, (metric, title), letter in zip(panels, TITLES.items(), "abcdef", strict=True):
        if metric == WIN_RATE:
            draw_wins(axes, wins, heights)
        else:
            rows = means[means["metric"] == metric]
            draw_means(axes, rows, heights)
            for plain, own in rows.groupby("plain", sort=False):
                draw_plain(axes, own, [heights[method] for method in arms_of(plain, metrics)])
        axes.set_title(title)
        axes.set_xlabel("change (points)" if metric in CHANGES else "per cent")
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x")
        panel(axes, letter, -0.02, 1 + 0.33 / size)
    panels[0].set_yticks(list(heights.values()), labels)
    panels[0].set_ylim(height - 0.3, -0.6)
    for place, (heading, color) in headings.items():
        panels[0].annotate(
            heading,
            (0, place),
            xycoords=("axes fraction", "data"),
            xytext=(-4, 0),
            textcoords="offset points",
            ha="right",
            va="center",
            color=color,
            fontweight="bold",
            annotation_clip=False,
            fontsize=7,
        )
    dot = {"linestyle": "", "color": "black", "markersize": 4.5}
    handles = [
        Line2D([], [], marker="s", label="plain training", **dot),
        Line2D([], [], marker="o", label="arm that differs from it", **dot),
        Line2D([], [], marker="o", markerfacecolor="white", label="arm that may not", **dot),
    ]
    figure.legend(
        handles=handles, loc="lower center", bbox_to_anchor=(0.5, 0.88 + 0.6 / figure.get_figheight()), ncols=3
    )
    return figure, pd.concat([means.assign(part="changes"), wins.assign(part=WIN_RATE)], ignore_index=True)


def main():
    arguments = parse_arguments(__doc__)
    save(*draw(read_metrics(arguments.inputs)), arguments.output)


if __name__ == "__main__":
    main()
