"""Station: how much of the kernel between the branches is left where they share only the lowest layers (paper section 6).

The kernel of generation and verdict is the inner product of their gradients over the parameters that both branches read: the
embedding and the lowest k layers; everything where all layers are shared, nothing where none is. Its cosine divides by the
norms over all parameters, as each branch has copies of its own of the others. Measured on the pre-trained model and the examples
and the batch of the station `kernel`, whose cosines are those of all layers.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from replication.corruption import named_rng
from replication.dynamics.blocks import block_of
from replication.dynamics.gradients import parts_of, per_example_gradients, sizes_of, trained_parameters
from replication.dynamics.kernel import all_pairs, draw_examples
from replication.files import atomic_file
from replication.models.interface import load_model


def shared_parts(parameters):
    """{k: numbers of the parameters that branches share where they share the lowest k layers}, from none to all of them."""
    parts = parts_of(parameters)
    layers = sum(part.startswith("layer ") for part in parts)
    shared, found = parts.get("embedding", []), {0: []}
    for number in range(1, layers):
        shared = shared + parts[f"layer {number - 1}"]
        found[number] = shared
    return {**found, layers: parts["all"]}


def cosines(block, shared):
    """Cosines of a `Block` with the inner product over the parameters numbered `shared` and the norms over all."""
    left, right = block.norms(slice(None))
    norms = left * right if block.inner.ndim == 2 else left[:, None] * right
    return torch.where(norms > 0, block.kernel(shared) / norms, 0.0)


def measure(model, pairs, batch, trained_modules):
    """Frame shared_layers, layers, block, cosine, absolute_cosine, pairs: means over the pairs of an example's verdict with the
    generation of each sample of the `batch` (verdict-generation), or with its own (own verdict-generation)."""
    parameters = trained_parameters(model, trained_modules)
    sizes, parts = sizes_of(parameters), shared_parts(parameters)
    verdict, own = (per_example_gradients(model, parameters, name, pairs) for name in ("verdict", "generation"))
    of_batch = per_example_gradients(model, parameters, "generation", batch)
    blocks = {"verdict-generation": block_of(verdict, of_batch, sizes)}
    blocks["own verdict-generation"] = block_of(verdict, own, sizes, paired=True)
    rows = []
    for name, block in blocks.items():
        for number, shared in parts.items():
            found = cosines(block, shared)
            rows.append((number, max(parts), name, found.mean().item(), found.abs().mean().item(), found.numel()))
    return pd.DataFrame(rows, columns=["shared_layers", "layers", "block", "cosine", "absolute_cosine", "pairs"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=json.loads, required=True, help="canonical JSON of the sharing section")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--model", type=Path, required=True, help="checkpoint folder of the base model")
    parser.add_argument("--candidates", type=Path, required=True, help="folder with codes.npy")
    parser.add_argument("--training-set", type=Path, required=True, help="CSV that refers to rows of codes.npy")
    parser.add_argument("--baseline", type=Path, required=True, help="evaluation folder of the pre-trained model")
    parser.add_argument(
        "--verdicts", type=Path, required=True, help="pretrained_verdicts.csv of the self-improved model"
    )
    parser.add_argument("--output", type=Path, required=True, help="sharing.csv")
    arguments = parser.parse_args()
    config, rng = arguments.config, named_rng(arguments.seed, "kernel")
    prompts = pd.read_csv(arguments.baseline / "images.csv")["prompt"]
    examples = draw_examples(pd.read_csv(arguments.verdicts), prompts, config["examples_per_group"], rng)
    training_set = pd.read_csv(arguments.training_set)
    size = min(config["per_device_train_batch_size"], len(training_set))
    *_, sample = (training_set.sample(size, random_state=rng) for _ in range(config["adam_batches"]))
    model = load_model(arguments.model, config["model"])
    codes, baseline = (
        np.load(folder / "codes.npy", allow_pickle=False) for folder in (arguments.candidates, arguments.baseline)
    )
    pairs = all_pairs(model, examples["prompt"], baseline[examples["row"]])
    batch = all_pairs(model, sample["prompt"], codes[sample["chosen"]])
    identity = {key: config[key] for key in ("preset", "experiment", "method")} | {"seed": arguments.seed}
    identity["model"] = f"{config['model']['name']}-{arguments.model.name.removeprefix('base=')}"
    table = measure(model, pairs, batch, config["trained_modules"]).assign(**identity)
    with atomic_file(arguments.output) as partial:
        table.to_csv(partial, index=False, float_format="%.6g")


if __name__ == "__main__":
    main()
