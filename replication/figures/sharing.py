"""Sharing: what training generation alone does to understanding, against how much the branches share (paper section 6).

A point is one run of a family, or of its variant whose branches share only the lowest layers. Its alignment is the measured kernel
of the two branches, as the mean size of the cosine of an example's verdict with the generation of the samples of a batch, before
training. (a) balanced accuracy on held-out scenes, (b) false positives on the pre-trained model's images, (c) verdicts changed
there, (d) balanced accuracy against generation: up and to the right is co-improvement, down and to the left co-degradation.

Inputs: metrics.csv of every arm and run and of the pre-trained models, and sharing.csv of every plain training.
"""

import re

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from replication.families import by_family, family_label, read_families
from replication.figures.co_degradation import change_of
from replication.figures.interventions import changed_share
from replication.results import mean_over_runs, parse_arguments, runs
from replication.style import COLORS, WIDTH, panel, plt, save

TRAININGS = {  # plain trainings: how they are called, and their colour
    "sft": ("SFT, own verdicts", COLORS["sft"]),
    "dpo": ("DPO, own verdicts", COLORS["dpo"]),
    "sft_swapped": ("SFT, swapped verdicts", "#CC79A7"),
}
VARIANT = re.compile(r"i_(?:shared_(?P<layers>\d+)|separate)(?P<end>_swapped)?")
CHANGES = ("generation", "nonunified", "balanced_accuracy")  # overall, in points
OTHERS = ("false_positives", "changed")  # on the pre-trained model's images, in points and per cent
MARKERS = "osD^v<>"  # of families, in the order of their names


def training_of(method):
    """(plain training, how many of the lowest layers the branches share) of an arm; nan: all of them."""
    variant = VARIANT.fullmatch(method)
    return (f"sft{variant['end'] or ''}", float(variant["layers"] or 0)) if variant else (method, np.nan)


def false_positive_change(metrics, method):
    """Change of the share of the pre-trained model's wrong images that are accepted, in points: a series over seeds."""
    counts = {
        triple: runs(metrics, method, f"triple_{triple}")[0]["overall"] for triple in ("000", "001", "010", "011")
    }
    return 100 * (counts["001"] - counts["010"]) / sum(counts.values())


def points_data(metrics, sharing):
    """One row per family, arm and run: family, method, training, shared_layers, layers, seed, model, alignment, signed_alignment,
    the `CHANGES` and `OTHERS`, and changed_number and right, how many verdicts changed, and how many of these are right.

    sharing: frame of the station sharing, of all runs. Raises SystemExit where a run's is missing.
    """
    frames = []
    for family, rows in by_family(metrics[metrics["subtask"] == "overall"]).items():
        for method in [name for name in rows["method"].unique() if name != "pretrained"]:
            training, shared = training_of(method)
            columns = {metric: change_of(rows, method, metric)[0] for metric in CHANGES}
            columns |= {"false_positives": false_positive_change(rows, method)}
            columns["changed"], models = changed_share(rows, method)
            changed = {
                name: runs(rows, method, f"triple_{name}")[0]["overall"] for name in ("010", "101", "001", "110")
            }
            columns |= {
                "right": changed["010"] + changed["101"],
                "changed_number": sum(changed.values()),
                "model": models,
            }
            table = pd.DataFrame(columns).rename_axis("seed").reset_index()
            frames.append(table.assign(family=family, method=method, training=training, shared_layers=shared))
    points = pd.concat(frames, ignore_index=True)
    measured = sharing[sharing["block"] == "verdict-generation"].rename(
        columns={"experiment": "training", "absolute_cosine": "alignment", "cosine": "signed_alignment"}
    )
    layers = measured.groupby("model")["layers"].first()
    points = points.assign(layers=points["model"].map(layers))
    points["shared_layers"] = points["shared_layers"].fillna(points["layers"])
    keys = ["model", "seed", "training", "shared_layers"]
    found = points.merge(
        measured[[*keys, "alignment", "signed_alignment"]], on=keys, how="left", validate="many_to_one"
    )
    if found["alignment"].isna().any():
        missing = found.loc[found["alignment"].isna(), ["model", "training", "seed"]].iloc[0]
        raise SystemExit(f"--inputs has no sharing.csv for {', '.join(map(str, missing))}; make it first.")
    return found


def means_data(points):
    """Mean over runs of every number of `points_data` with its interval: a frame family, training, shared_layers, layers, quantity,
    mean, low, high, runs. A single run has no interval."""
    rows, by = [], ["family", "training", "shared_layers", "layers"]
    for key, group in points.groupby(by):
        group = group.set_index("seed")
        for quantity in ("alignment", "signed_alignment", *CHANGES, *OTHERS):
            mean, low, high, number = mean_over_runs(group[quantity], group["model"])
            interval = (low, high) if number > 1 else (np.nan, np.nan)
            rows.append((*key, quantity, mean, *interval, number))
    return pd.DataFrame(rows, columns=[*by, "quantity", "mean", "low", "high", "runs"])


def draw_points(axes, points, means, x, y):
    """Small dots of runs, and marks of means with intervals: filled where the branches share all layers."""
    families = list(by_family(points))
    for (family, training, shared, layers), group in means.groupby(["family", "training", "shared_layers", "layers"]):
        color, marker = TRAININGS[training][1], MARKERS[families.index(family)]
        own = points[(points["family"] == family) & (points["training"] == training)]
        own = own[own["shared_layers"] == shared]
        axes.scatter(own[x], own[y], s=4, color=color, alpha=0.4, linewidth=0)
        group = group.set_index("quantity")
        errors = [
            np.nan_to_num(np.abs(group.loc[name, ["low", "high"]].to_numpy(float) - group.loc[name, "mean"]))[:, None]
            for name in (x, y)
        ]
        face = color if shared == layers else "white"
        style = {"fmt": marker, "color": color, "markerfacecolor": face, "markersize": 4.5, "elinewidth": 0.7}
        axes.errorbar(group.loc[x, "mean"], group.loc[y, "mean"], xerr=errors[0], yerr=errors[1], **style)
    axes.axhline(0, color="black", linewidth=0.6)
    axes.grid(axis="y")


def draw(metrics, sharing):
    """Figure and the frame of what it shows."""
    points = points_data(metrics, sharing)
    means = means_data(points)
    figure, panels = plt.subplots(2, 2, figsize=(WIDTH, 4.6), gridspec_kw={"wspace": 0.24, "hspace": 0.42})
    shown = {
        "balanced_accuracy": "balanced accuracy (points)",
        "false_positives": "false positives (points)",
        "changed": "changed verdicts (%)",
    }
    for axes, (quantity, name) in zip(panels.flat, shown.items(), strict=False):
        draw_points(axes, points, means, "alignment", quantity)
        axes.set(xlabel="alignment of the branches (mean |cosine|)", ylabel=name)
    axes = panels[1, 1]
    draw_points(axes, points, means, "generation", "balanced_accuracy")
    axes.axvline(0, color="black", linewidth=0.6)
    axes.set(xlabel="generation (points)", ylabel=shown["balanced_accuracy"])
    for axes, letter in zip(panels.flat, "abcd", strict=True):
        panel(axes, letter, -0.12)
    dot = {"linestyle": "", "markersize": 4.5}
    handles = [
        Line2D([], [], marker="s", color=color, label=name, **dot)
        for training, (name, color) in TRAININGS.items()
        if training in set(points["training"])
    ]
    handles += [
        Line2D([], [], marker=marker, color="black", label=family_label(family), **dot)
        for family, marker in zip(by_family(points), MARKERS, strict=False)
    ]
    for dial in points.loc[points["shared_layers"] < points["layers"], "family"].unique():
        handles.append(
            Line2D(
                [],
                [],
                marker=MARKERS[list(by_family(points)).index(dial)],
                color="black",
                markerfacecolor="white",
                label="fewer layers shared",
                **dot,
            )
        )
    figure.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.5, 0.91), ncols=4)
    return figure, pd.concat([points.assign(part="runs"), means.assign(part="means")], ignore_index=True)


def read_inputs(files):
    """Metrics of all families, and the frame of all sharing.csv."""
    metrics = read_families([file for file in files if file.name == "metrics.csv"])
    return metrics, pd.concat([pd.read_csv(file) for file in files if file.name == "sharing.csv"], ignore_index=True)


def main():
    arguments = parse_arguments(__doc__)
    save(*draw(*read_inputs(arguments.inputs)), arguments.output)


if __name__ == "__main__":
    main()
