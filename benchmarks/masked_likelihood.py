"""How uncertain the masked estimator of log pi(x | y) is, and how many orders bring it under what is to be seen.

python -m benchmarks.masked_likelihood --model results/tiny/base/base=0 [--config JSON of configs/model/embedded_showo.yaml]

Of held-out prompts, two images of the model each, one taken for chosen, one for rejected, at random. A copy of the model is
trained by a few steps on the chosen ones. For every number of steps the log-likelihoods are computed in several random orders,
the same ones for both images of a prompt and for both models. All numbers are nats per image; the table says:

log p: mean over images and orders. It rises with the number of steps: a lower bound that gets tighter.
SD of log p: over the orders of one image, root mean square over images. What one order leaves uncertain of a likelihood.
margin: SD over prompts of DPO's margin, (log p / p_ref of chosen) - (log p / p_ref of rejected), averaged over orders and
    corrected for what they leave uncertain: what is to be seen.
SD of margin, shared: over the orders of one prompt, all four likelihoods in the same order.
SD of margin, own: as if each of the four had an order of its own.
orders: that bring the shared SD to half of the margin.
"""

import argparse
import copy
import json

import numpy as np
import pandas as pd
import torch

from replication.config import load_stage
from replication.dynamics.gradients import trained_parameters
from replication.masked_sampling import random_orders
from replication.models.interface import load_model
from replication.prompts import prompt_table

STEPS = (1, 2, 4, 8, 36)


@torch.no_grad()
def log_likelihoods(model, prompts, images, steps, orders):
    """(orders, images per prompt, prompts) log-likelihoods of images, a list of codes (prompts, T) of each."""
    found = torch.empty(orders, len(images), len(prompts))
    for number in range(orders):
        seeds = torch.arange(len(prompts)) + 10_000 * number
        order = random_orders(seeds, model.codes_per_image, steps)
        for place, codes in enumerate(images):
            found[number, place] = model.image_log_probs(prompts, codes, order).sum(dim=1)
    return found


def trained_copy(model, prompts, codes, steps=5, learning_rate=3e-4):
    """A copy of the model after a few steps of SFT on `codes` (prompts, T)."""
    trained = copy.copy(model)
    trained.model = copy.deepcopy(model.model)
    optimizer = torch.optim.AdamW(trained_parameters(trained, "language_model").values(), lr=learning_rate)
    for _ in range(steps):
        loss = -trained.image_log_probs(prompts, codes).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return trained


def spread(values):
    """SD over the first axis, root mean square over the others."""
    return values.var(dim=0).mean().sqrt().item()


def measure(model, prompts, orders):
    """The table of this module, a frame of one row per number of steps."""
    images = [
        model.sample_images(prompts, [2 * i + place for i in range(len(prompts))], 1.0, 1.0)[0] for place in (0, 1)
    ]
    trained, rows = trained_copy(model, prompts, images[0]), []
    for steps in STEPS:
        before, after = (log_likelihoods(one, prompts, images, steps, orders) for one in (model, trained))
        margins = (after - before)[:, 0] - (after - before)[:, 1]
        shared, own = spread(margins), np.sqrt(2 * spread(before) ** 2 + 2 * spread(after) ** 2)
        margin = np.sqrt(max(margins.mean(dim=0).var().item() - shared**2 / orders, 0.0))
        needed = max(1, int(np.ceil((2 * shared / margin) ** 2))) if margin else np.nan
        rows.append((steps, before.mean().item(), spread(before), margin, shared, own, needed))
    columns = ["steps", "log p", "SD of log p", "margin", "SD of margin, shared", "SD of margin, own", "orders"]
    return pd.DataFrame(rows, columns=columns)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="checkpoint folder of a ShowoModel")
    parser.add_argument("--config", type=json.loads, help="of the model; embedded_showo's unless given")
    parser.add_argument("--prompts-per-subtask", type=int, default=4)
    parser.add_argument("--orders", type=int, default=8)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    config = arguments.config or load_stage("candidates", "tiny", overrides=("choices.model=embedded_showo",))["model"]
    prompts = prompt_table(arguments.prompts_per_subtask, held_out=True, seed=(0, 6))["prompt"].tolist()
    table = measure(load_model(arguments.model, config), prompts, arguments.orders)
    print(
        f"{len(prompts)} prompts, {arguments.orders} orders\n\n{table.to_string(index=False, float_format='{:.3g}'.format)}"
    )


if __name__ == "__main__":
    main()
