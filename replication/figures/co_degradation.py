"""Co-degradation under poor supervision, and whether it can be foreseen (paper section 7, v1).

(a-d) what training does to generation, understanding (balanced accuracy on held-out scenes, win rate) and the
Nonunified score, against the measured precision of the training set, one mark per arm and a dot per run; dashed is the
share of the model's own images that are right, where the quality check draws its line. (e) the same by arm; shaded are
the arms that improve the Nonunified score while generation or balanced accuracy falls. (f) how well the measures of
the quality check tell, before training, runs that get better from runs that get worse.

Inputs: metrics.csv and quality_check.csv of every arm and run, and metrics.csv of the pre-trained models.
"""

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from replication.results import mean_over_runs, parse_arguments, pooled, read_metrics, runs
from replication.statistics import auc_ci, wilson_interval
from replication.style import COLORS, METHODS, WIDTH, panel, plt, save

TRAINERS = ("sft", "dpo")
ARMS = {  # what follows the trainer in an arm's name: how the arm is called, and its mark
    "oracle": ("truth (upper bound)", "*"),
    "": ("own verdicts", "o"),
    "lenient": ("lenient", "p"),
    "flipped_10": ("10 % flipped", "^"),
    "everything": ("all accepted", "h"),
    "flipped_25": ("25 % flipped", ">"),
    "flipped_50": ("50 % flipped", "v"),
    "shuffled": ("prompts shuffled", "X"),
    "swapped": ("swapped", "s"),
    "random_lenient": ("lenient, any accepted", "P"),
    "random_flipped_10": ("10 % flipped, any accepted", "<"),
    "random_flipped_25": ("25 % flipped, any accepted", "D"),
    "random_flipped_50": ("50 % flipped, any accepted", "d"),
}
CHANGES = {
    "generation": "generation",
    "balanced_accuracy": "balanced accuracy",
    "nonunified": "Nonunified score",  # lower is better
}
LEAST = 0.5  # points: the least change that the claim nonunified_cannot_tell asks for; less is noise of a few scenes
MEASURES = {  # of the quality check: how each is called, and its sign where more is better
    "answer": ("its printed answer", 1),
    "advantage": ("precision less own\nshare of right images", 1),
    "precision_chosen": ("precision of\ntraining set", 1),
    "pair_margin": ("right less reversed\npairs (DPO)", 1),
    "mismatched_yes_rate": ("yes-rate on\nmismatched pairs", -1),
    "discrimination": ("accepted less\nmismatched accepted", 1),
    "kappa": ("agreement of two\njudges ($\\kappa$)", 1),
}
OUTCOMES = {  # of a run: how it is called, the mark, its filling, and where it stands in its line
    "both": ("both abilities rise, or both fall", "o", "white", -0.18),
    "generation": ("generation rises, or falls", "D", "black", 0.18),
}
FLAG = "#FBE3D6"
DASHED = (0, (4, 2))


def kind(method):
    return method.partition("_")[2]


def trainer(method):
    return method.partition("_")[0]


def shown_arms(metrics):
    """Names of the arms, SFT first, in the order of ARMS."""
    names = [f"{name}_{arm}".rstrip("_") for name in TRAINERS for arm in ARMS]
    return [name for name in names if name in set(metrics["method"])]


def change_of(metrics, method, metric):
    """Overall change of a metric against the pre-trained model, in points, as a series over seeds; and the models."""
    after, models = runs(metrics, method, metric)
    return 100 * (after["overall"] - runs(metrics, "pretrained", metric)[0]["overall"].loc[after.index]), models


def changes_data(metrics):
    """Frame method, metric, seed (nan for the mean over runs), change, low, high, in points; a single run has no interval."""
    rows = []
    for method in shown_arms(metrics):
        for metric in CHANGES:
            change, models = change_of(metrics, method, metric)
            mean, low, high, number = mean_over_runs(change, models)
            interval = (low, high) if number > 1 else (np.nan, np.nan)
            rows.append((method, metric, np.nan, mean, *interval))
            rows += [(method, metric, seed, value, np.nan, np.nan) for seed, value in change.items()]
    return pd.DataFrame(rows, columns=["method", "metric", "seed", "change", "low", "high"])


def precision_data(metrics):
    """Frame method, seed (nan for all runs pooled), k, n, percent, low, high: right images among labelled samples."""
    rows = metrics[metrics["metric"] == "precision_chosen"]
    rows = rows.assign(k=(rows["value"] * rows["n"]).round())[["method", "seed", "k", "n"]]
    together = rows.groupby("method", as_index=False)[["k", "n"]].sum().assign(seed=np.nan)
    rows = pd.concat([together, rows], ignore_index=True)
    intervals = [wilson_interval(k, n) for k, n in zip(rows["k"], rows["n"], strict=True)]
    rows[["low", "high"]] = 100 * np.array(intervals)
    return rows.assign(percent=100 * rows["k"] / rows["n"])


def win_rate_data(metrics):
    """Frame method, k, n, percent, low, high: changed verdicts that are right, pooled over subtasks and runs."""
    wins = pooled(metrics[metrics["method"].isin(shown_arms(metrics))], "understanding_win_rate", ["method"])
    wins[["low", "high"]] *= 100
    return wins.assign(percent=100 * wins["value"])[["method", "k", "n", "percent", "low", "high"]]


def flagged(changes):
    """Arms whose Nonunified score falls (improves) while generation or balanced accuracy falls, by at least `LEAST` each and with
    an interval below 0."""
    means = changes[changes["seed"].isna()].pivot(index="method", columns="metric", values=["change", "high"])
    falls = (means["high"] < 0) & (means["change"] <= -LEAST)
    return sorted(falls.index[falls["nonunified"] & (falls["generation"] | falls["balanced_accuracy"])])


def runs_data(metrics):
    """One row per run: method, seed, model, the measures of its quality check, and how generation and balanced accuracy
    changed."""
    frames = []
    for method in shown_arms(metrics):
        generation, models = change_of(metrics, method, "generation")
        columns = {"method": method, "model": models, "generation": generation}
        columns["balanced_accuracy"] = change_of(metrics, method, "balanced_accuracy")[0]
        for measure in MEASURES:
            rows = metrics[(metrics["method"] == method) & (metrics["metric"] == measure)]
            columns[measure] = rows.set_index("seed")["value"]
        frames.append(pd.DataFrame(columns).rename_axis("seed").reset_index())
    return pd.concat(frames, ignore_index=True)


def auc_data(cases):
    """Frame outcome, measure, auc, low, high, better, worse (numbers of runs).

    Outcome `both`: generation and balanced accuracy both rise (co-improvement) or both fall (co-degradation), by at least
    `LEAST`; other runs are left out. Outcome `generation`: it rises or falls by as much.
    """
    rows = []
    for outcome in OUTCOMES:
        abilities = cases[["generation", "balanced_accuracy"] if outcome == "both" else ["generation"]]
        better, worse = (abilities >= LEAST).all(axis=1), (abilities <= -LEAST).all(axis=1)
        for measure, (_, sign) in MEASURES.items():
            told = cases[(better | worse) & cases[measure].notna()]
            positive = better[told.index]
            estimate = auc_ci(sign * told[measure], positive, told["seed"], told["model"], told["method"])
            rows.append((outcome, measure, *estimate, positive.sum(), (~positive).sum()))
    return pd.DataFrame(rows, columns=["outcome", "measure", "auc", "low", "high", "better", "worse"])


def errors(rows, value):
    return np.abs(rows[["low", "high"]].to_numpy(float) - rows[[value]].to_numpy(float)).T


def draw_curve(axes, precision, values, column):
    """Marks of arms (means) and dots of runs over precision; `values` has a column seed where there are runs to show."""
    for method in dict.fromkeys(values["method"]):
        color, (_, mark) = COLORS[trainer(method)], ARMS[kind(method)]
        rows, x = values[values["method"] == method], precision[precision["method"] == method]
        if "seed" in rows:
            dots = rows.dropna(subset="seed").merge(x.dropna(subset="seed"), on="seed")
            axes.scatter(dots["percent"], dots[column], s=3, color=color, alpha=0.45, linewidth=0)
            rows = rows[rows["seed"].isna()]
        x = x[x["seed"].isna()]
        style = {"color": color, "markersize": 5 + 2 * (mark == "*"), "markeredgewidth": 0, "elinewidth": 0.7}
        axes.errorbar(
            x["percent"], rows[column], xerr=errors(x, "percent"), yerr=errors(rows, column), fmt=mark, **style
        )
    axes.grid()
    axes.set(xlim=(-4, 104), xticks=range(0, 101, 25))


def draw_arms(axes, changes, metric, flags):
    methods = list(dict.fromkeys(changes["method"]))
    for row, method in enumerate(methods):
        rows = changes[(changes["metric"] == metric) & (changes["method"] == method)]
        color, (_, mark) = COLORS[trainer(method)], ARMS[kind(method)]
        mean, dots = rows[rows["seed"].isna()], rows[rows["seed"].notna()]
        if method in flags:
            axes.axhspan(row - 0.5, row + 0.5, color=FLAG, linewidth=0, zorder=0)
        axes.scatter(dots["change"], [row + 0.28] * len(dots), s=3, color=color, alpha=0.45, linewidth=0)
        style = {"color": color, "markersize": 4.5 + 2 * (mark == "*"), "markeredgewidth": 0}
        axes.errorbar(mean["change"], [row], xerr=errors(mean, "change"), fmt=mark, **style)
    axes.axvline(0, color="black", linewidth=0.6)
    names = [f"{METHODS[trainer(method)]}, {ARMS[kind(method)][0]}" for method in methods]
    axes.set_yticks(range(len(methods)), names)
    axes.set(ylim=(len(methods) - 0.4, -0.6), xlabel="change (points)")
    axes.set_title(CHANGES[metric])
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")


def outcomes_met(auc):
    """The outcomes that any run had."""
    return [outcome for outcome in OUTCOMES if auc.loc[auc["outcome"] == outcome, ["better", "worse"]].any(axis=None)]


def draw_auc(axes, auc):
    for outcome in outcomes_met(auc):
        _, mark, filled, offset = OUTCOMES[outcome]
        rows = auc[auc["outcome"] == outcome].reset_index(drop=True)
        y = rows.index + offset
        style = {"color": "black", "markersize": 4, "markerfacecolor": filled, "clip_on": False}
        axes.errorbar(rows["auc"], y, xerr=errors(rows, "auc"), fmt=mark, **style)
        for height, better, worse in zip(y, rows["better"], rows["worse"], strict=True):
            axes.text(1.06, height, f"{better} : {worse}", va="center", fontsize=6)
    axes.text(1.06, -0.75, "rise : fall", va="bottom", fontsize=6)
    axes.axvline(0.5, color="black", linewidth=0.6, linestyle=DASHED)
    axes.set_yticks(range(len(MEASURES)), [name for name, _ in MEASURES.values()])
    axes.set(xlim=(0, 1), ylim=(len(MEASURES) - 0.4, -0.6), xlabel="area under the ROC curve")
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")


def draw(metrics):
    """Figure and the frame of what it shows."""
    changes, precision, wins = changes_data(metrics), precision_data(metrics), win_rate_data(metrics)
    flags, cases = flagged(changes), runs_data(metrics)
    auc, arms = auc_data(cases), list(dict.fromkeys(changes["method"]))
    top, gap, bottom = 1.45, 0.75, 0.5 + 0.17 * max(len(arms), 9)  # inches
    height = (top + gap + bottom) / 0.85
    figure = plt.figure(figsize=(WIDTH, height))
    above = figure.add_gridspec(1, 4, left=0.02, top=0.9, bottom=0.9 - top / height, wspace=0.45)
    below = figure.add_gridspec(
        1, 5, top=0.05 + bottom / height, bottom=0.05, width_ratios=[1, 1, 1, 0.85, 1.2], wspace=0.14
    )
    curves = [figure.add_subplot(cell) for cell in above]
    for axes, metric in zip((curves[0], curves[1], curves[3]), CHANGES, strict=True):
        draw_curve(axes, precision, changes[changes["metric"] == metric], "change")
        axes.axhline(0, color="black", linewidth=0.6)
        axes.set(title=CHANGES[metric], ylabel="change (points)")
    draw_curve(curves[2], precision, wins, "percent")
    curves[2].axhline(50, color="black", linewidth=0.6)
    curves[2].set(title="win rate", ylabel="of changed verdicts (%)", ylim=(-4, 104), yticks=range(0, 101, 25))
    own = 100 * metrics.loc[metrics["metric"] == "own_right", "value"].mean()
    for axes, letter in zip(curves, "abcd", strict=True):
        axes.axvline(own, color="black", linewidth=0.6, linestyle=DASHED)
        axes.set_xlabel("precision (%)")
        axes.yaxis.labelpad = 1
        panel(axes, letter, -0.32)
    forest = [figure.add_subplot(below[index]) for index in range(3)]
    for axes, metric in zip(forest, CHANGES, strict=True):
        draw_arms(axes, changes, metric, flags)
        axes.tick_params(labelleft=axes is forest[0])
    right = figure.add_subplot(below[4])
    draw_auc(right, auc)
    panel(forest[0], "e", -1.25)
    panel(right, "f", -0.8)
    dot = {"linestyle": "", "markersize": 4}
    handles = [Line2D([], [], marker="o", color=COLORS[name], label=METHODS[name], **dot) for name in TRAINERS]
    handles.append(
        Line2D([], [], marker="s", color=FLAG, linestyle="", label="Nonunified improves, true quality falls")
    )
    for outcome in outcomes_met(auc):
        text, mark, filled, _ = OUTCOMES[outcome]
        handles.append(Line2D([], [], marker=mark, color="black", markerfacecolor=filled, label=text, **dot))
    figure.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.45, 0.94), ncols=len(handles), columnspacing=1)
    parts = {"changes": changes.assign(flagged=changes["method"].isin(flags)), "precision": precision}
    parts |= {"win rate": wins, "auc": auc, "runs": cases, "own share right": pd.DataFrame({"percent": [own]})}
    return figure, pd.concat([frame.assign(part=name) for name, frame in parts.items()], ignore_index=True)


def main():
    arguments = parse_arguments(__doc__)
    save(*draw(read_metrics(arguments.inputs)), arguments.output)


if __name__ == "__main__":
    main()
