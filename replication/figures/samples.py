"""Images of the same prompts before and after self-improvement, each with the oracle's answer (at the paper's scale the
judge's, and the benchmark's score) and the model's own.

Not picked by eye: each row is the first evaluation prompt of its subtask, each image the first of that prompt. Inputs are
pairs of images.csv and images.npy (the first image of each prompt, in the order of its image 0 rows).
"""

import textwrap

import numpy as np
import pandas as pd

from replication.results import parse_arguments
from replication.style import FALSE_COLOR, METHODS, TRUE_COLOR, label, plt, save

COLUMNS = ("pretrained", "sft", "dpo")


def first_prompts(images, pixels):
    """First evaluation prompt of each subtask: a frame with a column `row` into `pixels` (prompts, H, W, 3)."""
    rows = images[images["image"] == 0].reset_index(drop=True)
    if len(rows) != len(pixels):
        raise SystemExit(
            f"images.npy holds {len(pixels)} images, images.csv {len(rows)} first images; give the files of one evaluation."
        )
    return rows.assign(row=rows.index).drop_duplicates("subtask").set_index("subtask", drop=False)


def draw(evaluations):
    """`evaluations`: (images frame, pixels) of the methods in COLUMNS order. Figure and the frame of what it shows."""
    drawn = [first_prompts(images, pixels) for images, pixels in evaluations]
    size = len(drawn[0]), len(COLUMNS)
    prompts = [textwrap.fill(prompt, 36) for prompt in drawn[0]["prompt"]]
    row = 0.72 + 0.12 * max(0, max(prompt.count("\n") for prompt in prompts) - 2)  # inches
    figure, grid = plt.subplots(*size, figsize=(5.5, row * size[0]), gridspec_kw={"wspace": 1.1, "hspace": 0.14})
    figure.subplots_adjust(left=0.4)
    for column, (method, rows, (_, pixels)) in enumerate(zip(COLUMNS, drawn, evaluations, strict=True)):
        grid[0, column].text(0.5, 1.15, METHODS[method], transform=grid[0, column].transAxes, ha="center")
        for axes, (_, image) in zip(grid[:, column], rows.iterrows(), strict=True):
            color = TRUE_COLOR if image["truth"] == 1 else FALSE_COLOR
            axes.imshow(pixels[image["row"]], interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set(visible=True, color=color, linewidth=2)
            note = f"{'judge' if 'score' in image else 'oracle'}: {'yes' if image['truth'] == 1 else 'no'}"
            note += f"\nmodel: {'yes' if image['verdict'] == 1 else 'no'}"
            note += f"\nscore: {image['score']:.2f}" if "score" in image else ""
            axes.text(1.12, 0.5, note, transform=axes.transAxes, va="center", fontsize=6, linespacing=1.4)
    for axes, subtask, prompt in zip(grid[:, 0], drawn[0]["subtask"], prompts, strict=True):
        text = {"transform": axes.transAxes, "ha": "right", "fontsize": 7}
        axes.text(-0.25, 0.72, label(subtask), va="bottom", color="#606060", **text | {"fontsize": 6})
        axes.text(-0.25, 0.68, prompt, va="top", **text)
    data = pd.concat(
        [rows.assign(method=method) for method, rows in zip(COLUMNS, drawn, strict=True)], ignore_index=True
    )
    return figure, data.drop(columns="row")


def main():
    arguments = parse_arguments(__doc__)
    if len(arguments.inputs) != 2 * len(COLUMNS):
        raise SystemExit(f"Give images.csv and images.npy of {', '.join(COLUMNS)}, in this order, to --inputs.")
    pairs = zip(arguments.inputs[::2], arguments.inputs[1::2], strict=True)
    evaluations = [(pd.read_csv(table), np.load(pixels, mmap_mode="r", allow_pickle=False)) for table, pixels in pairs]
    save(*draw(evaluations), arguments.output)


if __name__ == "__main__":
    main()
