"""Curriculum: what replay of the discarded prompts adds to self-improvement, and whether equal compute adds as much.

Above: gain of each schedule and control over plain SFT or DPO, paired over runs: (a) generation, (b) unification, (c)
balanced accuracy on held-out labelled scenes; and (d) how many discarded prompts a replay unlocks, pooled over runs, with
Wilson 95 % intervals. Below (e to g): each replay minus its controls. Means with 95 % intervals over paired runs; points
are runs.
"""

import numpy as np
import pandas as pd

from replication.results import mean_over_runs, parse_arguments, read_metrics, runs
from replication.statistics import wilson_interval
from replication.style import COLORS, CURRICULUM, PAPER_COLOR, WIDTH, panel, plt, save

QUANTITIES = {
    "generation": "generation (points)",
    "nonunified": "unification (points)",
    "balanced_accuracy": "balanced\naccuracy (points)",
}
CONTROLS = {  # what a replay is compared with: the replay, and what the difference is called
    "c_sft_random": ("c_sft", "C-SFT – random samples"),
    "c_sft_steps": ("c_sft", "C-SFT – extra steps"),
    "c_sft_generation_only": ("c_sft", "C-SFT – only generation"),
    "c_sft_understanding_only": ("c_sft", "C-SFT – only understanding"),
    "c_sft_neither": ("c_sft", "C-SFT – neither branch"),
    "c_sft_n_2_random": ("c_sft_n_2", "N = 2: – random samples"),
    "c_sft_n_2_steps": ("c_sft_n_2", "N = 2: – extra steps"),
    "c_dpo_random": ("c_dpo", "C-DPO – random pairs"),
    "c_dpo_steps": ("c_dpo", "C-DPO – extra steps"),
}
PLAIN = ("sft", "s_n_2", "dpo")
EQUAL_COMPUTE = tuple(name for name in CONTROLS if name.endswith(("_random", "_steps")))
WITHOUT_REPLAY = ("c_sft_stages", *EQUAL_COMPUTE)


def plain(method):
    """The self-improvement that an arm of the curriculum extends."""
    return "dpo" if method.startswith("c_dpo") else "s_n_2" if method.startswith("c_sft_n_2") else "sft"


def color(method):
    return PAPER_COLOR if method in EQUAL_COMPUTE else COLORS["dpo" if method.startswith("c_dpo") else "sft"]


def overall(metrics, method, quantity):
    """Overall value of each run in per cent, unification for `nonunified`, and the models of the runs."""
    values, models = runs(metrics, method, quantity)
    return 100 * (1 - values["overall"] if quantity == "nonunified" else values["overall"]), models


def changes_data(metrics):
    """Frame method, against, quantity, seed (nan for the mean over runs), change, low, high, runs: every arm against plain
    self-improvement, and each replay against its controls."""
    arms = [method for method in CURRICULUM if (metrics["method"] == method).any()]
    pairs = [(method, plain(method)) for method in arms]
    pairs += [(replay, control) for control, (replay, _) in CONTROLS.items() if {replay, control} <= set(arms)]
    rows = []
    for method, against in pairs:
        for quantity in QUANTITIES:
            after, models = overall(metrics, method, quantity)
            change = (after - overall(metrics, against, quantity)[0]).dropna()
            rows.append((method, against, quantity, np.nan, *mean_over_runs(change, models)))
            rows += [(method, against, quantity, seed, value, np.nan, np.nan, 1) for seed, value in change.items()]
    return pd.DataFrame(rows, columns=["method", "against", "quantity", "seed", "change", "low", "high", "runs"])


def unlocked_data(phases):
    """Frame method, unlocked, discarded (prompts, all runs together), percent, low, high, of arms that replay the pool."""
    rows = []
    for method in CURRICULUM:
        counts = phases[phases["experiment"] == method]
        discarded = counts.loc[counts["phase"] == 1, "prompts_discarded"].sum()
        if method in WITHOUT_REPLAY or counts.empty:
            continue
        unlocked = counts["prompts_unlocked"].sum()
        share = unlocked / discarded if discarded else np.nan
        rows.append((method, unlocked, discarded, *(100 * np.array([share, *wilson_interval(unlocked, discarded)]))))
    return pd.DataFrame(rows, columns=["method", "unlocked", "discarded", "percent", "low", "high"])


def errors(rows, value):
    return np.abs(rows[["low", "high"]].to_numpy() - rows[[value]].to_numpy()).T


def draw_changes(axes, changes, key, names, quantity):
    """One row per name in column `key`: mean, interval and runs."""
    for height, name in enumerate(names):
        rows = changes[(changes[key] == name) & (changes["quantity"] == quantity)]
        mean, single = rows[rows["seed"].isna()], rows[rows["seed"].notna()]
        shade = color(rows["method"].iloc[0])
        axes.scatter(single["change"], [height + 0.25] * len(single), s=5, color=shade, alpha=0.5, linewidth=0)
        axes.errorbar(mean["change"], [height], xerr=errors(mean, "change"), fmt="o", color=shade, markersize=4)
    axes.axvline(0, color="black", linewidth=0.6)
    axes.set_ylim(len(names) - 0.5, -0.5)


def draw_unlocked(axes, unlocked, arms):
    rows = unlocked.set_index("method")
    for height, method in enumerate(arms):
        if method not in rows.index:
            axes.text(0, height, "–", va="center", fontsize=7)
            continue
        row = rows.loc[[method]]
        axes.errorbar(row["percent"], [height], xerr=errors(row, "percent"), fmt="o", color=color(method), markersize=4)
        counts = f"{row['unlocked'].item():.0f}/{row['discarded'].item():.0f}"
        axes.text(104, height, counts, va="center", fontsize=6, color=color(method))
    axes.set(xlim=(-3, 103), ylim=(len(arms) - 0.5, -0.5), xlabel="discarded prompts\nunlocked (%)")
    axes.tick_params(labelbottom=True)


def draw(metrics, phases):
    """Figure and the frame of what it shows."""
    changes, unlocked = changes_data(metrics), unlocked_data(phases)
    gains = changes["against"].isin(PLAIN)
    blocks = {"gain over plain SFT or DPO": (changes[gains], "method", CURRICULUM)}
    if not gains.all():
        differences = {control: name for control, (_, name) in CONTROLS.items()}
        blocks["replay minus its controls"] = (changes[~gains], "against", differences)
    names = [rows[key].unique() for rows, key, _ in blocks.values()]
    heights = [len(block) for block in names]
    figure, panels = plt.subplots(
        len(blocks),
        4,
        figsize=(WIDTH, 1.3 + 0.26 * sum(heights)),
        sharex="col",
        squeeze=False,
        height_ratios=heights,
        gridspec_kw={"wspace": 0.16, "hspace": 1.4 / (heights[0] + 1)},
    )
    for row, (title, (rows, key, labels)), block in zip(panels, blocks.items(), names, strict=True):
        for axes, quantity in zip(row, QUANTITIES, strict=False):
            draw_changes(axes, rows, key, block, quantity)
        for axes in row:
            axes.set_yticks(
                range(len(block)), [labels[name] for name in block] if axes is row[0] else [""] * len(block)
            )
            axes.tick_params(axis="y", length=0)
            axes.grid(axis="x")
        row[0].text(-0.04, 1.03, title, transform=row[0].transAxes, ha="right", va="bottom")
    for axes, text in zip(panels[-1], QUANTITIES.values(), strict=False):
        axes.set_xlabel(text)
    draw_unlocked(panels[0, 3], unlocked, names[0])
    for axes in panels[1:, 3]:
        axes.axis("off")
    for axes, letter in zip(panels.flat, "abcdefg", strict=False):
        panel(axes, letter, 0)
    parts = {"changes": changes, "unlocked": unlocked}
    return figure, pd.concat([frame.assign(part=part) for part, frame in parts.items()], ignore_index=True)


def read_inputs(files):
    """All metrics rows of all runs, and the counts of all phases (phases.csv) of the curriculum runs."""
    phases = [file for file in files if file.name == "phases.csv"]
    counts = pd.concat([pd.read_csv(file) for file in phases], ignore_index=True)
    return read_metrics([file for file in files if file not in phases]), counts


def main():
    arguments = parse_arguments(__doc__)
    save(*draw(*read_inputs(arguments.inputs)), arguments.output)


if __name__ == "__main__":
    main()
