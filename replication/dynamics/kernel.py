"""Station: the measured kernel of one self-improved model, beside what the paper has in its place (paper section 6, Fig. 7).

The paper explains why understanding changes when only generation is trained by a kernel that both share, and shows for the
corrected false positives that they resemble the training data (a proxy of the kernel), and that their log-likelihood falls.
Here the kernel itself is measured, on those images and on controls: false positives that were not corrected, true positives
kept, true negatives, and images with the prompt of another (`unseen`).

Writes to a folder: examples.csv, one row per example, what the whole training did to it (delta_*), and how alike it and its
nearest training pair are; pairs.csv, one row per example and sample of one training batch, similarities and cosines of
gradients; alignment.csv, blocks of the kernel by layer, kind of parameters and group, before and after training; steps.csv, one
real optimizer step, predicted and actual; estimators.csv, cheap estimates of the kernel beside the exact one.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import normalize

from replication.claim_registry import write_registered
from replication.corruption import named_rng, other_prompts
from replication.dynamics.blocks import alignment, block_of, estimates
from replication.dynamics.gradients import (
    QUANTITIES,
    Pairs,
    parts_of,
    per_example_gradients,
    sizes_of,
    trained_parameters,
    values,
)
from replication.dynamics.steps import changes, optimizer_steps
from replication.files import atomic_directory
from replication.models.interface import load_model
from replication.provenance import write_provenance

GROUPS = {  # (truth, verdict before, verdict after) on an image of the pre-trained model
    "corrected": (0, 1, 0),
    "not_corrected": (0, 1, 1),
    "true_positive": (1, 1, 1),
    "true_negative": (0, 0, 0),
}


def draw_examples(verdicts, prompts, number, rng):
    """The examples: a frame group, row (of `verdicts`), prompt_id, subtask, image, prompt, other_prompt.

    verdicts: frame prompt_id, subtask, image, truth, before, after; prompts: their prompts. All corrected false positives
    are taken, they are few, and up to `number` at random of every other group. `unseen` are images of any group with a prompt
    that is not theirs. other_prompt is one more prompt that is not the example's: the paper's y_i != y_0.
    """
    rows = verdicts[["prompt_id", "subtask", "image"]].assign(row=range(len(verdicts)), prompt=prompts.to_numpy())
    rows["other_prompt"] = rows["prompt"].to_numpy()[other_prompts(rows["prompt"], rng)]
    third_prompt = rows["other_prompt"].to_numpy()[other_prompts(rows["other_prompt"], rng)]
    found = []
    for group, triple in GROUPS.items():
        members = rows[(verdicts[["truth", "before", "after"]].to_numpy() == triple).all(axis=1)]
        if group != "corrected":
            members = members.sample(min(number, len(members)), random_state=rng).sort_index()
        found.append(members.assign(group=group))
    unseen = rows.assign(prompt=rows["other_prompt"], other_prompt=third_prompt, group="unseen")
    found.append(unseen.sample(min(number, len(rows)), random_state=rng).sort_index())
    return pd.concat(found, ignore_index=True)


def all_pairs(model, prompts, codes):
    """`Pairs` of prompts and the images of codes (n, T)."""
    codes = torch.tensor(codes).long()
    return Pairs(list(prompts), codes, model.decode_images(codes))


def similarities(model, examples, prompts, others, config):
    """Cosines (n, m) of the features of `prompts` and those of the pairs `others`, and of the images."""
    size = config["batch_size"]
    text = [
        normalize(
            torch.cat([model.prompt_features(names[start : start + size]) for start in range(0, len(names), size)])
        )
        for names in (prompts, others.prompts)
    ]
    image = [
        normalize(
            torch.cat([model.image_features(pixels[start : start + size]) for start in range(0, len(pixels), size)])
        )
        for pixels in (examples.images, others.images)
    ]
    return (text[0] @ text[1].T).numpy(), (image[0] @ image[1].T).numpy()


def gradients_of(model, parameters, examples, batch):
    """Gradients of every quantity of the examples and of the batch: two dicts quantity -> (n, P)."""
    return tuple(
        {quantity: per_example_gradients(model, parameters, quantity, pairs) for quantity in QUANTITIES}
        for pairs in (examples, batch)
    )


CROSSED = {  # blocks of the kernel: what changes in the example, and what the sample of the batch is trained on
    f"{left}-{right}": (left, right)
    for left, right in [*((quantity, "generation") for quantity in QUANTITIES), ("caption",) * 2, ("verdict",) * 2]
}
PAIRED = {  # gradients of two quantities of the same example
    f"own {left}-{right}": (left, right)
    for left, right in [("caption", "generation"), ("verdict", "generation"), ("verdict", "caption")]
}


def blocks_of(own, batch, sizes):
    """The blocks of the kernel: name -> Block, from gradients of the examples and of the batch, quantity -> (n, P)."""
    blocks = {name: block_of(own[left], batch[right], sizes) for name, (left, right) in CROSSED.items()}
    return blocks | {name: block_of(own[left], own[right], sizes, True) for name, (left, right) in PAIRED.items()}


def nearest_pairs(model, examples, other_prompts, training_set, codes, config):
    """Each example's most similar training pair, by the sum of the similarities of prompt and image.

    Returns a frame nearest (row of `training_set`), text_similarity, image_similarity, other_text_similarity (of the other
    prompt and its own most similar one among all), and the nearest pairs themselves.
    """
    trained = all_pairs(model, training_set["prompt"], codes[training_set["chosen"]])
    text, image = similarities(model, examples, examples.prompts, trained, config)
    other, _ = similarities(model, examples, other_prompts, trained, config)
    nearest, rows = (text + image).argmax(axis=1), np.arange(len(examples))
    found = pd.DataFrame(
        {
            "nearest": nearest,
            "text_similarity": text[rows, nearest],
            "image_similarity": image[rows, nearest],
            "other_text_similarity": other[rows, nearest],
        }
    )
    return found, Pairs([trained.prompts[row] for row in nearest], trained.codes[nearest], trained.images[nearest])


def measure(model, trained, examples, training_set, codes, baseline_codes, config, rng):
    """The frames of this station, a dict name -> frame; see the head of this module.

    model, trained: before and after self-improvement. examples: frame of `draw_examples`, rows of `baseline_codes`.
    training_set: frame prompt, chosen and for DPO rejected, rows of `codes`.
    """
    settings = config["post_training"]
    parameters = trained_parameters(model, settings["trained_modules"])
    parts = parts_of(parameters)
    pairs = all_pairs(model, examples["prompt"], baseline_codes[examples["row"]])
    others = pairs.with_prompts(examples["other_prompt"])
    size = min(settings["per_device_train_batch_size"], len(training_set))
    batches = [training_set.sample(size, random_state=rng) for _ in range(config["adam_batches"])]
    batch = all_pairs(model, batches[-1]["prompt"], codes[batches[-1]["chosen"]])

    similar, nearest = nearest_pairs(model, pairs, examples["other_prompt"].tolist(), training_set, codes, config)
    examples = examples.join(similar)
    for quantity in QUANTITIES:
        examples[f"delta_{quantity}"] = values(trained, quantity, pairs) - values(model, quantity, pairs)

    steps, preconditioner = optimizer_steps(model, parameters, batches, torch.tensor(codes).long(), settings)
    moved = [
        changes(model, parameters, pairs, step, config["step_scales"]).assign(optimizer=optimizer)
        for optimizer, step in steps.items()
    ]

    sizes, groups = sizes_of(parameters), examples["group"]
    own, of_batch = gradients_of(model, parameters, pairs, batch)
    near = per_example_gradients(model, parameters, "generation", nearest)
    for column, gradients in (
        ("kernel", own["generation"]),
        ("other_kernel", per_example_gradients(model, parameters, "generation", others)),
    ):
        examples[column] = block_of(gradients, near, sizes, paired=True).cosines(parts["all"]).numpy()
    blocks = blocks_of(own, of_batch, sizes)
    for quantity in ("caption", "verdict"):
        examples[f"own_{quantity}"] = blocks[f"own {quantity}-generation"].cosines(parts["all"]).numpy()
    aligned = [alignment(blocks, parts, groups).assign(model_at="before", metric="plain")]
    text, image = similarities(model, pairs, pairs.prompts, batch, config)
    columns = {"text_similarity": text, "image_similarity": image}
    columns |= {name: blocks[name].cosines(parts["all"]).numpy() for name in CROSSED}
    index = pd.MultiIndex.from_product([range(len(pairs)), range(len(batch))], names=["example", "sample"])
    table = pd.DataFrame({name: column.ravel() for name, column in columns.items()}, index=index).reset_index()
    cheap = estimates(
        {name: blocks[name] for name in CROSSED},
        {name: (own[left], of_batch[right]) for name, (left, right) in CROSSED.items()},
        parts,
        config["sketch_sizes"],
        config["sketch_seed"],
    )
    for gradients in (*own.values(), *of_batch.values()):
        gradients *= preconditioner.sqrt()
    blocks = blocks_of(own, of_batch, sizes)
    aligned.append(alignment(blocks, parts, groups).assign(model_at="before", metric="adam"))

    parameters = trained_parameters(trained, settings["trained_modules"])
    own, of_batch = gradients_of(trained, parameters, pairs, batch)
    blocks = blocks_of(own, of_batch, sizes)
    aligned.append(alignment(blocks, parts, groups).assign(model_at="after", metric="plain"))
    numbers = {part: sum(sizes[number] for number in members) for part, members in parts.items()}
    table_of_blocks = pd.concat(aligned, ignore_index=True)
    return {
        "examples": examples,
        "pairs": table,
        "alignment": table_of_blocks.assign(parameters=table_of_blocks["part"].map(numbers)),
        "steps": pd.concat(moved, ignore_index=True),
        "estimators": cheap,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=json.loads, required=True, help="canonical JSON of the kernel section")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--model", type=Path, required=True, help="checkpoint folder of the base model")
    parser.add_argument("--trained", type=Path, required=True, help="checkpoint folder of the self-improved model")
    parser.add_argument("--candidates", type=Path, required=True, help="folder with codes.npy")
    parser.add_argument("--training-set", type=Path, required=True, help="CSV that refers to rows of codes.npy")
    parser.add_argument("--baseline", type=Path, required=True, help="evaluation folder of the pre-trained model")
    parser.add_argument(
        "--verdicts", type=Path, required=True, help="pretrained_verdicts.csv of the self-improved model"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder of the tables")
    arguments = parser.parse_args()
    config, rng = arguments.config, named_rng(arguments.seed, "kernel")
    prompts = pd.read_csv(arguments.baseline / "images.csv")["prompt"]
    examples = draw_examples(pd.read_csv(arguments.verdicts), prompts, config["examples_per_group"], rng)
    tables = measure(
        load_model(arguments.model, config["model"]),
        load_model(arguments.trained, config["model"]),
        examples,
        pd.read_csv(arguments.training_set),
        np.load(arguments.candidates / "codes.npy", allow_pickle=False),
        np.load(arguments.baseline / "codes.npy", allow_pickle=False),
        config,
        rng,
    )
    identity = {key: config[key] for key in ("preset", "experiment", "method")} | {"seed": arguments.seed}
    identity["model"] = f"{config['model']['name']}-{arguments.model.name.removeprefix('base=')}"
    with atomic_directory(arguments.output) as folder:
        for name, table in tables.items():
            table.assign(**identity).to_csv(folder / f"{name}.csv", index=False, float_format="%.6g")
        write_provenance(folder / "provenance.json", config, arguments.seed)
        write_registered(folder)


if __name__ == "__main__":
    main()
