"""Closed loop: self-improvement round after round, each from the model of the round before.

(a) generation, (b) unification, (c) balanced accuracy on held-out scenes; (d) verdicts changed since round 0 that are right,
pooled over runs with Wilson 95 % intervals; (e) gain in generation over the round before; (f) right images among the chosen
ones; (g) prompts that give a sample; (h) entropy of the images of a prompt. Means with 95 % intervals over paired runs;
points are runs. Inputs: metrics.csv and images.csv of every round's evaluation, supervision.csv of every round.
"""

import numpy as np
import pandas as pd

from replication.figures.curriculum import errors, overall
from replication.figures.sensitivity import frame, per_run
from replication.results import parse_arguments, pooled, read_metrics, read_of_runs
from replication.scenes import SUBTASKS
from replication.style import COLORS, TRUE_COLOR, WIDTH, panel, plt, save

LOOPS = {  # first round and the name of the others: what the loop is called, and its colour
    "sft": ("loop", "SFT, own verdicts", COLORS["sft"]),
    "sft_oracle": ("loop_oracle", "SFT, truth (control)", TRUE_COLOR),
    "dpo": ("loop_dpo", "DPO, own verdicts", COLORS["dpo"]),
}
LONGER = "loop_longer"  # the first round of SFT for as many epochs as two
PANELS = {
    "generation": "generation (%)",
    "nonunified": "unification (%)",
    "balanced_accuracy": "balanced\naccuracy (%)",
    "win_rate": "changed verdicts\nthat are right (%)",
    "gain": "gain over the round\nbefore (points)",
    "precision": "right among\nchosen images (%)",
    "prompts_used": "prompts that\ngive a sample (%)",
    "entropy": "entropy of images\n(nats)",
}


def rounds_of(first, methods):
    """Methods of a loop by round, from 0 (pre-trained) to its last; {} where it was run for one round only, or not."""
    rounds = {0: "pretrained", 1: first}
    while f"{LOOPS[first][0]}_{len(rounds)}" in methods:
        rounds[len(rounds)] = f"{LOOPS[first][0]}_{len(rounds)}"
    return rounds if len(rounds) > 2 else {}


def entropy(images):
    """Estimated entropy of the images of a prompt in nats, a series over seeds: mean -log pi(x | y) of one image per prompt, first
    over those of each subtask, then over subtasks."""
    images = images[images["image"] == 0]
    surprise = -images["log_prob"].groupby([images["seed"], images["subtask"]]).mean()
    return surprise.unstack()[list(SUBTASKS)].mean(axis=1)


def share_of_run(supervision, experiment, metric):
    """A metric of supervision.csv in per cent, a series over seeds; prompts_used as a share of all prompts."""
    rows = supervision[(supervision["experiment"] == experiment) & (supervision["metric"] == metric)].set_index("seed")
    return 100 * (rows["value"] / rows["n"] if metric == "prompts_used" else rows["value"])


def rounds_data(metrics, images, supervision):
    """Frame method, quantity, seed (nan for the mean over runs), value, low, high, runs, loop, round."""
    frames = []
    for first in LOOPS:
        rounds = rounds_of(first, set(metrics["method"]))
        for number, method in rounds.items():
            generation, models = overall(metrics, method, "generation")
            values = {
                name: overall(metrics, method, name)[0] for name in ("generation", "nonunified", "balanced_accuracy")
            }
            values["entropy"] = entropy(images[images["experiment"] == ("baseline" if number == 0 else method)])
            if number:
                values["gain"] = (
                    generation - overall(metrics, rounds[number - 1], "generation")[0].loc[generation.index]
                )
                values["precision"] = share_of_run(supervision, method, "precision_chosen")
                values["prompts_used"] = share_of_run(supervision, method, "prompts_used")
            rows = [row for name, series in values.items() for row in per_run(method, name, series, models)]
            if number:
                wins = pooled(metrics[metrics["method"] == method], "understanding_win_rate", ["method"]).iloc[0]
                shares = 100 * wins[["value", "low", "high"]].astype(float)
                rows.append((method, "win_rate", np.nan, *shares, len(generation)))
            frames.append(frame(rows).assign(loop=first, round=number))
    if (metrics["method"] == LONGER).any():
        for name in ("generation", "nonunified", "balanced_accuracy"):
            values, models = overall(metrics, LONGER, name)
            frames.append(frame(per_run(LONGER, name, values, models)).assign(loop=LONGER, round=2))
    return pd.concat(frames, ignore_index=True)


def draw(metrics, images, supervision):
    """Figure and the frame of what it shows."""
    data = rounds_data(metrics, images, supervision)
    figure, panels = plt.subplots(2, 4, figsize=(WIDTH, 3.5), sharex=True, gridspec_kw={"wspace": 0.95, "hspace": 0.25})
    loops = [loop for loop in LOOPS if loop in set(data["loop"])]
    for axes, (quantity, text), letter in zip(panels.flat, PANELS.items(), "abcdefgh", strict=True):
        for index, loop in enumerate(loops):
            _, name, color = LOOPS[loop]
            rows = data[(data["loop"] == loop) & (data["quantity"] == quantity)]
            mean, single = rows[rows["seed"].isna()], rows[rows["seed"].notna()]
            shift = 0.08 * (index - (len(loops) - 1) / 2)
            axes.scatter(single["round"] + shift, single["value"], s=3, color=color, alpha=0.4, linewidth=0)
            style = {"color": color, "marker": "o", "markersize": 3.5, "elinewidth": 0.8, "label": name}
            axes.errorbar(mean["round"] + shift, mean["value"], yerr=errors(mean, "value"), **style)
        longer = data[(data["loop"] == LONGER) & (data["quantity"] == quantity) & data["seed"].isna()]
        if len(longer):
            style = {
                "color": COLORS["sft"],
                "fmt": "D",
                "markersize": 3.5,
                "markerfacecolor": "white",
                "elinewidth": 0.8,
            }
            name = "SFT, one round of twice the epochs"
            axes.errorbar(longer["round"] + 0.2, longer["value"], yerr=errors(longer, "value"), label=name, **style)
        axes.set_ylabel(text)
        axes.grid(axis="y")
        panel(axes, letter, -0.42)
    panels[1, 0].axhline(0, color="black", linewidth=0.6)
    panels[0, 3].axhline(50, color="black", linewidth=0.6)
    for axes in panels[1]:
        axes.set(xlabel="round", xticks=range(int(data["round"].max()) + 1))
    figure.align_ylabels(panels)
    handles, names = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="lower center", bbox_to_anchor=(0.5, 0.94), ncols=len(handles))
    return figure, data


def read_inputs(files):
    """All metrics rows, images of all evaluations, and the tables that say what each round's training set is."""
    kinds = {
        name: [file for file in files if file.name == f"{name}.csv"] for name in ("metrics", "images", "supervision")
    }
    return read_metrics(kinds["metrics"]), read_of_runs(kinds["images"]), read_of_runs(kinds["supervision"])


def main():
    arguments = parse_arguments(__doc__)
    save(*draw(*read_inputs(arguments.inputs)), arguments.output)


if __name__ == "__main__":
    main()
