"""Sensitivity: what becomes of self-improvement when one setting that the paper leaves open is another.

(a, b) number of candidates per prompt: training samples per 100 prompts beside the paper's, and the change in generation and
unification. (c, d) classifier-free guidance at evaluation: generation and unification of models that were trained without.
Below, all other settings: change against the pre-trained model, and samples per 100 prompts. Means with 95 % intervals over
paired runs; points are runs. Inputs: metrics.csv of every run, supervision.csv of every run that was trained.
"""

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from replication.figures.curriculum import errors, overall
from replication.results import mean_over_runs, paper_values, parse_arguments, read_metrics, read_of_runs
from replication.style import COLORS, METHODS, PAPER_COLOR, TRUE_COLOR, WIDTH, panel, plt, save

QUANTITIES = {
    "generation": "generation",
    "nonunified": "unification",
    "balanced_accuracy": "balanced accuracy",
}
SAMPLES = "samples"  # of the training set, per 100 prompts
SETTINGS = {  # what is set, and what to: experiments and their names, the setting of the other figures among them
    "threshold of the verdict": {
        "s_threshold_lax": "lax",
        "sft": "0",
        "s_threshold_strict": "strict",
        "s_threshold_stricter": "stricter",
    },
    "selection rule": {
        "sft": "contrast, best",
        "s_rule_three": "contrast, best three",
        "s_rule_random": "contrast, random",
        "s_rule_best": "best accepted",
        "s_rule_top": "highest margin",
        "sft_accept_all": "accept all",
    },
    "pairs": {"dpo": "most positive, most negative", "s_rule_random_dpo": "random"},
    "trained modules": {
        "sft": "language model",
        "s_modules_aligner": "+ aligner",
        "s_modules_vision": "+ image embeddings, head",
    },
    "learning rate, SFT": {"s_lr_sft_third": "a third", "sft": "as in SFT", "s_lr_sft_triple": "three times"},
    "learning rate, DPO": {"s_lr_dpo_third": "a third", "dpo": "as in DPO", "s_lr_dpo_triple": "three times"},
    "beta": {
        "s_beta_0_01": "0.01",
        "s_beta_0_03": "0.03",
        "dpo": "0.1",
        "s_beta_0_3": "0.3",
        "s_beta_1": "1",
    },
    "dropped prompts": {"sft": "none", "s_cfg_dropout_10": "10 %"},
}
GUIDED = {
    "baseline": "pretrained",
    "sft": "sft",
    "cfg_dropout": "s_cfg_dropout_10",
}  # in s_guidance_*, and their methods
GUIDED_COLORS = {"pretrained": COLORS["pretrained"], "sft": COLORS["sft"], "s_cfg_dropout_10": TRUE_COLOR}
GUIDED_NAMES = METHODS | {"s_cfg_dropout_10": "SFT, 10 % of prompts dropped"}


def trained(metrics):
    """Methods that were trained, in the order of their results."""
    methods = metrics["method"].unique()
    return [method for method in methods if method != "pretrained" and not method.startswith("s_guidance_")]


def per_run(method, quantity, values, models):
    """Rows method, quantity, seed (nan for the mean over runs), value, low, high, runs; a single run has no interval."""
    mean, low, high, number = mean_over_runs(values, models)
    interval = (low, high) if number > 1 else (np.nan, np.nan)
    runs = [(method, quantity, seed, value, np.nan, np.nan, 1) for seed, value in values.items()]
    return [(method, quantity, np.nan, mean, *interval, number), *runs]


def frame(rows):
    return pd.DataFrame(rows, columns=["method", "quantity", "seed", "value", "low", "high", "runs"])


def candidates_per_prompt(supervision, method):
    """How many candidates of each prompt a method's training set was taken from."""
    rows = supervision[supervision["experiment"] == method].drop_duplicates("metric").set_index("metric")
    return int(rows.loc["accepted_share", "n"] / rows.loc["prompts", "value"])


def changes_data(metrics, supervision):
    """`per_run` of every trained method: change against the pre-trained model in points, and samples per 100 prompts."""
    rows = []
    for method in trained(metrics):
        for quantity in QUANTITIES:
            after, models = overall(metrics, method, quantity)
            change = after - overall(metrics, "pretrained", quantity)[0].loc[after.index]
            rows += per_run(method, quantity, change, models)
        counts = supervision[(supervision["experiment"] == method) & (supervision["metric"] == "samples")]
        counts = counts.set_index("seed")
        rows += per_run(method, SAMPLES, 100 * counts["value"] / counts["n"], models)
    return frame(rows)


def by_candidates(changes, supervision):
    """`changes` of SFT on different numbers of candidates, with this number as the column `candidates`."""
    rows = changes[(changes["method"] == "sft") | changes["method"].str.startswith("s_n_")]
    numbers = {method: candidates_per_prompt(supervision, method) for method in rows["method"].unique()}
    return rows.assign(candidates=rows["method"].map(numbers)).sort_values("candidates", kind="stable")


def guidance_data(metrics):
    """`per_run` of generation and unification in per cent of the models in GUIDED, with the columns scale (of the guidance) and
    evaluated (the method under which this evaluation goes); a model without guided evaluation is left out."""
    frames = []
    for name, method in GUIDED.items():
        scales = {
            int(guided.split("_")[2]): guided
            for guided in metrics["method"].unique()
            if guided.startswith("s_guidance_") and guided.endswith(f"_{name}")
        }
        for scale, evaluated in sorted(({1: method} | scales).items() if scales else ()):
            rows = [
                row
                for quantity in ("generation", "nonunified")
                for row in per_run(method, quantity, *overall(metrics, evaluated, quantity))
            ]
            frames.append(frame(rows).assign(scale=scale, evaluated=evaluated))
    return pd.concat(frames, ignore_index=True) if frames else frame([]).assign(scale=[], evaluated=[])


def paper_samples():
    """The paper's samples per 100 prompts, a series over candidates per prompt."""
    table = paper_values("samples").set_index("candidates_per_prompt")
    return 100 * table["samples"] / table["prompts"]


def draw_curve(axes, rows, x, shift=0.0, **style):
    """Means joined by a line, their intervals, and runs, over the column `x`."""
    means, single = rows[rows["seed"].isna()], rows[rows["seed"].notna()]
    axes.scatter(single[x] + shift, single["value"], s=4, color=style["color"], alpha=0.4, linewidth=0)
    axes.errorbar(means[x] + shift, means["value"], yerr=errors(means, "value"), marker="o", markersize=3.5, **style)


def draw_curves(panels, numbers, guidance):
    a, b, c, d = panels
    samples = numbers[numbers["quantity"] == SAMPLES]
    draw_curve(a, samples, "candidates", color=COLORS["sft"], label="ours")
    paper = paper_samples()
    a.plot(paper.index, paper, "D", color=PAPER_COLOR, markersize=4, label="paper")
    a.set(ylabel="samples per 100 prompts", ylim=(0, 100))
    a.legend(loc="lower right", handlelength=1.2)
    for quantity, shift, style in (("generation", -0.1, {}), ("nonunified", 0.1, {"markerfacecolor": "white"})):
        rows = numbers[numbers["quantity"] == quantity]
        draw_curve(b, rows, "candidates", shift, color=COLORS["sft"], label=QUANTITIES[quantity], **style)
    b.axhline(0, color="black", linewidth=0.6)
    b.set(ylabel="change (points)")
    b.legend(loc="lower right", bbox_to_anchor=(1.12, 0.98), ncols=2, handlelength=1.5, columnspacing=0.8)
    for axes in (a, b):
        ticks = sorted({*numbers["candidates"], *paper.index})
        axes.set(xlabel="candidates per prompt", xticks=ticks, xlim=(ticks[0] - 1, ticks[-1] + 1))
    for axes, quantity in ((c, "generation"), (d, "nonunified")):
        for index, method in enumerate(guidance["method"].unique()):
            rows = guidance[(guidance["method"] == method) & (guidance["quantity"] == quantity)]
            draw_curve(axes, rows, "scale", 0.06 * (index - 1), color=GUIDED_COLORS[method], label=GUIDED_NAMES[method])
        ticks = sorted({*guidance["scale"], 1})
        axes.set(xlabel="guidance at evaluation", xticks=ticks, xlim=(ticks[0] - 0.3, ticks[-1] + 0.3))
        axes.set_ylabel(f"{QUANTITIES[quantity]} (%)")
    for axes, letter in zip(panels, "abcd", strict=True):
        axes.grid(axis="y")
        panel(axes, letter, -0.34)


def shown_settings(changes):
    """The settings of which more than one choice was run: a dict of the choices that were, with their names."""
    run = set(changes["method"])
    settings = {
        setting: {method: name for method, name in choices.items() if method in run}
        for setting, choices in SETTINGS.items()
    }
    return {setting: choices for setting, choices in settings.items() if len(choices) > 1}


def forest_rows(settings):
    """(height, setting, method, name) of every line of the forest, method None for the title of a setting."""
    rows, height = [], 0.0
    for setting, choices in settings.items():
        rows.append((height, setting, None, setting))
        for method, name in choices.items():
            height += 1
            rows.append((height, setting, method, name))
        height += 1.4
    return rows


def draw_forest(axes, changes, quantity, rows):
    for height, setting, method, _ in rows:
        values = changes[(changes["method"] == method) & (changes["quantity"] == quantity)]
        if values.empty:
            continue
        usual = method in ("sft", "dpo")
        color = COLORS["dpo" if "dpo" in SETTINGS[setting] else "sft"]
        mean, single = values[values["seed"].isna()], values[values["seed"].notna()]
        axes.scatter(single["value"], [height + 0.3] * len(single), s=3, color=color, alpha=0.4, linewidth=0)
        style = {"color": "black" if usual else color, "markersize": 4, "elinewidth": 0.8}
        axes.errorbar(mean["value"], [height], xerr=errors(mean, "value"), fmt="o", **style)
        if usual:
            heights = [row[0] for row in rows if row[1] == setting and row[2]]
            axes.vlines(mean["value"], min(heights) - 0.4, max(heights) + 0.4, color="black", linewidth=0.5, alpha=0.5)
    if quantity == SAMPLES:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1, 3)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.axvline(0, color="black", linewidth=0.6)
    axes.set_ylim(rows[-1][0] + 0.7, -0.8)
    axes.set_yticks([height for height, *_ in rows], [""] * len(rows))
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")


def draw(metrics, supervision):
    """Figure and the frame of what it shows."""
    changes = changes_data(metrics, supervision)
    numbers, guidance = by_candidates(changes, supervision), guidance_data(metrics)
    settings = shown_settings(changes)
    rows = forest_rows(settings)
    top, gap, lines = 1.5, 0.95, 0.15 * (rows[-1][0] + 1.5)  # inches
    height = top + gap + lines
    figure = plt.figure(figsize=(WIDTH, height))
    above = figure.add_gridspec(1, 4, left=0.0, right=1.0, top=1.0, bottom=1 - top / height, wspace=0.5)
    below = figure.add_gridspec(1, 4, left=0.2, right=1.0, top=lines / height, bottom=0.0, wspace=0.12)
    panels = [figure.add_subplot(cell) for cell in above]
    draw_curves(panels, numbers, guidance)
    forest = [figure.add_subplot(cell) for cell in below]
    names = {**QUANTITIES, SAMPLES: "samples"}
    for axes, (quantity, name), letter in zip(forest, names.items(), "efgh", strict=True):
        draw_forest(axes, changes, quantity, rows)
        axes.set_title(name, loc="right")
        axes.set_xlabel("per 100 prompts (log)" if quantity == SAMPLES else "change (points)")
        panel(axes, letter, 0, 1 + 0.07 / lines)
    forest[0].set_yticks([row[0] for row in rows], [row[3] for row in rows])
    for text, (_, _, method, _) in zip(forest[0].get_yticklabels(), rows, strict=True):
        text.set_fontweight("normal" if method else "bold")
    handles = [
        Line2D([], [], color=GUIDED_COLORS[method], marker="o", markersize=3.5, label=GUIDED_NAMES[method])
        for method in guidance["method"].unique()
    ]
    figure.legend(handles=handles, loc="lower right", bbox_to_anchor=(1.0, 1 + 0.16 / height), ncols=3, columnspacing=1)
    parts = {"changes": changes, "candidates": numbers, "guidance": guidance}
    parts["paper"] = paper_samples().rename("value").rename_axis("candidates").reset_index().assign(quantity=SAMPLES)
    return figure, pd.concat([part.assign(part=name) for name, part in parts.items()], ignore_index=True)


def read_inputs(files):
    """All metrics rows of all runs, and the tables that say what each training set was selected from."""
    supervision = [file for file in files if file.name == "supervision.csv"]
    return read_metrics([file for file in files if file not in supervision]), read_of_runs(supervision)


def main():
    arguments = parse_arguments(__doc__)
    save(*draw(*read_inputs(arguments.inputs)), arguments.output)


if __name__ == "__main__":
    main()
