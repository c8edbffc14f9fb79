"""Propositions 1 and 2 (paper section 6) on two simulated branches that share a dial's worth of parameters.

Above: (a) errors of the predicted change after one step over its learning rate; (b) how far understanding is from the
paper's bridge dU = dG - dlog pi(x); (c) change in understanding over the angle between the branches' features; (d) squeezing
by DPO. Below: change in understanding (e, f) and in the Nonunified score (g, h) over sharing, after few and many steps, under
good and poor supervision. Means over random worlds with 95 % intervals.

Input: the CSV of replication.dynamics.simulation.
"""

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from replication.results import parse_arguments
from replication.statistics import bootstrap_ci
from replication.style import COLORS, METHODS, TRUE_COLOR, WIDTH, panel, plt, save

SUPERVISIONS = {  # how each is called, and its colour
    "own": ("own verdicts", TRUE_COLOR),
    "swapped": ("swapped verdicts", "#CC79A7"),
    "mistaken": ("wrong ones of the accepted", "#E69F00"),
    "renamed": ("another prompt's images", "#4D4D4D"),
}
LINES = {"sft": "-", "dpo": (0, (3, 1.5))}
ERRORS = {  # of one step, all shared: how each is called, and its mark
    "generation": ("$\\Delta G$", "o"),
    "branch": ("$\\Delta U$ through $K_{ug}$", "^"),
    "stated_bayes": ("$\\Delta U$ as stated, for Bayes inverse", "D"),
    "stated_branch": ("$\\Delta U$ as stated, for the branch", "s"),
}
STARTS = {"own": ("as pre-trained", "-"), "consistent": ("Bayes-consistent at start", (0, (3, 1.5)))}
SQUEEZED = {"likeliest": "#000000", "chosen": TRUE_COLOR, "rejected": "#CC79A7"}
FEW_STEPS = 10  # shown beside the last: gains are still growing, as in the paper's short trainings


def over_worlds(rows, keys):
    """Frame of `keys`, mean, low, high and worlds: the column value over seeds."""
    found = []
    for names, group in rows.groupby(keys, dropna=False, sort=False):
        values = group["value"].to_numpy()
        low, high = bootstrap_ci(values[:, None], statistic=np.mean) if len(values) > 1 else (np.nan, np.nan)
        found.append((*names, values.mean(), low, high, len(values)))
    return pd.DataFrame(found, columns=[*keys, "mean", "low", "high", "worlds"])


def shown_steps(table):
    """FEW_STEPS and the last. Raises SystemExit when the former was not measured."""
    steps = table.loc[table["part"] == "training", "step"]
    if not (steps == FEW_STEPS).any():
        raise SystemExit(f"The simulation has no step {FEW_STEPS}; put it in simulation.steps and run it again.")
    return FEW_STEPS, int(steps.max())


def changes_data(table):
    """Frame method, supervision, start, sharing, angle, step, metric, mean, low, high, worlds: change in points since step 0,
    where it is drawn."""
    few, many = shown_steps(table)
    aligned, understanding = table["angle"] == 0, table["metric"] == "understanding"
    angled = understanding & (table["sharing"] == 1) & (table["step"].isin([0, few]))
    shared = aligned & ((table["metric"] != "generation") | (table["sharing"] == 1))
    bayes = (table["start"] == "bayes") & (table["metric"] == "nonunified")
    rows = table[(table["part"] == "training") & (angled | shared | bayes)]
    setting = ["seed", "method", "supervision", "start", "sharing", "angle", "metric"]
    before = rows[rows["step"] == 0].set_index(setting)["value"]
    after = rows[rows["step"].isin([few, many])].set_index([*setting, "step"])["value"]
    changes = (after - before.reindex(after.index.droplevel("step")).to_numpy()).reset_index()
    return over_worlds(changes, ["method", "supervision", "start", "sharing", "angle", "step", "metric"])


def errors_data(table):
    """Frame method, metric, rate, mean, low, high, worlds, slope: root mean square errors of one step, all shared; the slope
    of their logarithm over that of the rate."""
    rows = table[(table["part"] == "one_step") & table["metric"].isin(ERRORS)]
    rows = rows[rows["sharing"].isna() | (rows["sharing"] == 1)]
    errors = over_worlds(rows, ["method", "metric", "rate"])
    slopes = {
        key: np.polyfit(np.log(group["rate"]), np.log(group["mean"]), 1)[0]
        for key, group in errors.groupby(["method", "metric"])
    }
    return errors.assign(slope=[slopes[key] for key in zip(errors["method"], errors["metric"], strict=True)])


def draw_line(axes, rows, x, **style):
    """Mean of `rows` over column `x`, with its interval."""
    rows = rows.sort_values(x)
    (line,) = axes.plot(rows[x], rows["mean"], **style)
    axes.fill_between(rows[x], rows["low"], rows["high"], color=line.get_color(), alpha=0.15, linewidth=0)


def draw_errors(axes, errors):
    for (method, metric), rows in errors.groupby(["method", "metric"]):
        _, mark = ERRORS[metric]
        style = {"color": COLORS[method], "marker": mark, "markersize": 3, "markerfacecolor": "white"}
        draw_line(axes, rows, "rate", linestyle=":" if metric == "stated_branch" else "-", linewidth=0.8, **style)
    axes.set(xscale="log", yscale="log", xlabel="learning rate $\\eta$", ylabel="error of one step (nats)")
    handles = [
        Line2D([], [], color="black", marker=mark, markersize=3, markerfacecolor="white", linestyle="", label=name)
        for name, mark in ERRORS.values()
    ]
    axes.legend(handles=handles, loc="lower left", bbox_to_anchor=(-0.45, 1.12), fontsize=6, labelspacing=0.2)
    for quadratic, place in ((True, (0.97, 0.03)), (False, (0.05, 0.9))):
        slopes = errors.loc[(errors["metric"] != "stated_branch") == quadratic, "slope"]
        low, high = f"{slopes.min():.2f}", f"{slopes.max():.2f}"
        text = f"slope {low}" if low == high else f"slopes {low} to {high}"
        axes.text(*place, text, transform=axes.transAxes, fontsize=6, ha="right" if quadratic else "left")


def draw_bridge(axes, bridge):
    for start, (name, line) in STARTS.items():
        rows = bridge[bridge["start"] == start]
        draw_line(axes, rows, "sharing", color="black", linestyle=line, label=name)
    axes.axhline(0, color=TRUE_COLOR, label="Bayes inverse (exact)", clip_on=False)
    axes.legend(loc="lower left", bbox_to_anchor=(-0.2, 1.12), fontsize=6, labelspacing=0.2)
    axes.set(ylim=(0, 1.05), xlabel="sharing", ylabel="share of the bridge's\n$\\Delta U$ not followed")


def draw_changes(axes, changes, x):
    for (supervision, method), rows in changes.groupby(["supervision", "method"]):
        draw_line(axes, rows, x, color=SUPERVISIONS[supervision][1], linestyle=LINES[method])
    axes.axhline(0, color="black", linewidth=0.6)


def draw_marks(axes, name, changes):
    """Marks at the right: what does not depend on the dial; SFT filled, DPO hollow."""
    place = {"transform": axes.get_xaxis_transform(), "ha": "center", "va": "top", "fontsize": 6}
    axes.text(1.16, -0.14, name, **place)
    for (supervision, method), rows in changes.groupby(["supervision", "method"]):
        color, filled = SUPERVISIONS[supervision][1], method == "sft"
        style = {"color": color, "markersize": 4, "markerfacecolor": color if filled else "white", "clip_on": False}
        axes.plot(1.1 + 0.06 * (not filled), rows["mean"].iloc[0], "o", **style)


def draw_squeezing(axes, squeezing):
    for (metric, nll_weight), rows in squeezing[squeezing["step"] > 0].groupby(["metric", "nll_weight"]):
        line = LINES["dpo"] if nll_weight else "-"
        draw_line(axes, rows, "step", color=SQUEEZED[metric], linestyle=line, clip_on=True)
    handles = [Line2D([], [], color=color, label=name) for name, color in SQUEEZED.items()]
    handles.append(Line2D([], [], color="black", linestyle=LINES["dpo"], label="with NLL of chosen"))
    axes.legend(handles=handles, loc="lower left", bbox_to_anchor=(-0.2, 1.12), fontsize=6, labelspacing=0.2)
    axes.set(xscale="log", ylim=(-6, 0), xlabel="steps of DPO", ylabel="mean $\\log\\,\\pi(x|y)$")


def draw(table):
    """Figure and the frame of what it shows."""
    few, many = shown_steps(table)
    errors, changes = errors_data(table), changes_data(table)
    bridge = table[(table["part"] == "bridge") & (table["step"] == few)]
    bridge = over_worlds(bridge, ["start", "sharing", "step", "metric"])
    squeezing = over_worlds(table[table["part"] == "squeezing"], ["nll_weight", "step", "metric"])
    figure, panels = plt.subplots(2, 4, figsize=(WIDTH * 1.1, 3.9), gridspec_kw={"wspace": 0.62, "hspace": 0.52})
    draw_errors(panels[0, 0], errors)
    draw_bridge(panels[0, 1], bridge)
    branch = changes[changes["start"] == "own"]
    angled = branch[(branch["metric"] == "understanding") & (branch["sharing"] == 1) & (branch["step"] == few)]
    draw_changes(panels[0, 2], angled, "angle")
    panels[0, 2].set(
        xlabel="angle between features (°)", ylabel="$\\Delta$ understanding\n(points)", xticks=range(0, 181, 60)
    )
    panels[0, 2].set_title(f"all shared, {few} steps", fontsize=7)
    draw_squeezing(panels[0, 3], squeezing)
    shown = [("understanding", few), ("understanding", many), ("nonunified", few), ("nonunified", many)]
    for axes, (metric, step) in zip(panels[1], shown, strict=True):
        here = changes[changes["step"] == step]
        aligned = here[(here["start"] == "own") & (here["angle"] == 0)]
        draw_changes(axes, aligned[aligned["metric"] == metric], "sharing")
        axes.set_title(f"{step} steps", fontsize=7)
        axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        if metric == "understanding":
            draw_marks(axes, "genera-\ntion", aligned[aligned["metric"] == "generation"])
            axes.set(xlabel="sharing", ylabel="$\\Delta$ understanding\n(points)")
        else:
            draw_marks(axes, "Bayes\ninverse", here[here["start"] == "bayes"])
            axes.set(xlabel="sharing", ylabel="$\\Delta$ Nonunified\n(points)")
    for axes, letter in zip(panels.flat, "abcdefgh", strict=True):
        axes.grid()
        axes.yaxis.labelpad = 0
        panel(axes, letter, -0.45)
    handles = [Line2D([], [], color=color, label=name) for name, color in SUPERVISIONS.values()]
    handles += [Line2D([], [], color="black", linestyle=line, label=METHODS[name]) for name, line in LINES.items()]
    figure.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0.02), ncols=len(handles), columnspacing=1)
    parts = {"errors": errors, "changes": changes, "bridge": bridge, "squeezing": squeezing}
    return figure, pd.concat([frame.assign(part=name) for name, frame in parts.items()], ignore_index=True)


def main():
    arguments = parse_arguments(__doc__)
    save(*draw(pd.concat([pd.read_csv(file) for file in arguments.inputs], ignore_index=True)), arguments.output)


if __name__ == "__main__":
    main()
