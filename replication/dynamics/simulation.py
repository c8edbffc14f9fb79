"""Station: Propositions 1 and 2 of the paper (section 6), simulated on two branches that share a dial's worth of parameters.

python -m replication.dynamics.simulation --config JSON --output FILE

Writes a long CSV: a row per number, its part, seed (of a random world) and setting; settings that do not apply are empty.

one_step    errors of the predicted change after one step from random weights, root mean square over all prompts and images
training    generation, understanding and Nonunified score while generation is trained, for good and for poor supervision
bridge      how far understanding is from dU = dG - dlog pi(x) after training
squeezing   what DPO does to the log-probabilities of chosen, rejected and likeliest images (Ren and Sutherland, section 11)
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from replication.corruption import named_rng
from replication.dynamics import branches, propositions
from replication.files import atomic_file

SETTINGS = ["part", "seed", "method", "supervision", "start", "sharing", "angle", "rate", "nll_weight", "step"]
METHODS = ("sft", "dpo")
SUPERVISIONS = ("own", "swapped", "mistaken", "renamed")


def check(config):
    """Raises SystemExit with one sentence when the simulation cannot be run as asked."""
    if config["attributes"] < 2 or config["tokens_per_attribute"] < 1 or config["width"] < 1 or config["worlds"] < 1:
        raise SystemExit(
            "simulation: a world needs attributes >= 2, tokens_per_attribute >= 1, width >= 1, and worlds >= 1."
        )
    if not all(0 <= sharing <= 1 for sharing in config["sharing"]):
        raise SystemExit(f"simulation.sharing: {config['sharing']} must be numbers from 0 (nothing) to 1 (everything).")
    if not all(0 <= angle <= 180 for angle in config["angles"]):
        raise SystemExit(f"simulation.angles: {config['angles']} must be degrees from 0 (aligned) to 180 (opposed).")
    if len(config["one_step_rates"]) < 2 or min(config["one_step_rates"]) <= 0:
        raise SystemExit(f"simulation.one_step_rates: {config['one_step_rates']} must be two positive numbers or more.")
    if not config["steps"] or any(step != int(step) or step < 1 for step in config["steps"]):
        raise SystemExit(f"simulation.steps: {config['steps']} must be whole numbers from 1 on, when to measure.")


def accepted(world):
    """Own verdicts on image x for prompt y (P, X): whether the prompt is the likeliest reading of the image.

    assumption: the theory has no yes or no (section 6); the likeliest answer is section 1's hard decision.
    """
    logits = world.understanding_logits
    return (logits == logits.max(axis=1, keepdims=True)).T


def supervise(world, supervision):
    """Images to choose and images to reject, two distributions for each prompt: (P, X), 0 where a prompt has none.

    Both are drawn by the pre-trained model, and prompts for which it draws none are discarded (Algorithm 1).
    own: by own verdicts. swapped: by verdicts turned round. mistaken: own verdicts, but of the accepted images only the wrong ones. renamed: by own
    verdicts, but of the images of another prompt, always the same one, with which no attribute is shared.
    """
    yes, right = accepted(world), world.right.T
    drawn = np.exp(branches.generation_log_probs(world, np.zeros(world.features.shape[-1])))
    match supervision:
        case "own":
            return _normalised(drawn * yes), _normalised(drawn * ~yes)
        case "swapped":
            return _normalised(drawn * ~yes), _normalised(drawn * yes)
        case "mistaken":
            return _normalised(drawn * (yes & ~right)), _normalised(drawn * ~yes)
        case "renamed":
            attributes = world.prompts.max() + 1
            other = ((world.prompts + 1) % attributes) @ [attributes, 1]
            return _normalised((drawn * yes)[other]), _normalised((drawn * ~yes)[other])


def _normalised(weights):
    totals = weights.sum(axis=1, keepdims=True)
    return np.divide(weights, totals, out=np.zeros_like(weights), where=totals > 0)


def train(world, chosen, rejected, method, config, nll_weight=0.0):
    """Weights of generation before training and after each of `config["steps"]` full-batch steps, as a dict by step.

    The losses are those of Propositions 1 and 2 in expectation over `chosen` and `rejected` (P, X), so that nothing is
    drawn; `nll_weight` adds the chosen image's NLL to DPO's, as the paper does (section 3).
    """
    weights = np.zeros(world.features.shape[-1])
    reference = branches.generation_log_probs(world, weights)
    pairs = chosen[:, :, None] * rejected[:, None, :] / len(chosen)
    found = {0: weights}
    for step in range(1, max(config["steps"]) + 1):
        tokens = branches.token_log_probs(world, weights)
        pull = chosen / len(chosen)
        if method == "dpo":
            pull = nll_weight * pull
            pull = pull + branches.dpo_weights(world.along_image(tokens), reference, pairs, config["beta"])
        gradient = np.tensordot(branches.residuals(world, tokens, pull), world.features, axes=3)
        weights = weights - config["rates"][method] * gradient
        if step in config["steps"]:
            found[step] = weights
    return found


def measures(world, generation, understanding):
    """Generation, understanding and Nonunified score in per cent, from log pi(x|y) (P, X) and log pi(y|x) (X, P)."""
    drawn, read = np.exp(generation), np.exp(understanding)
    verdicts = (read == read.max(axis=1, keepdims=True)).T
    return {
        "generation": 100 * (drawn * world.right.T).sum(axis=1).mean(),  # images drawn that show their prompt
        "understanding": 100 * (read * world.right).sum(axis=1).mean(),  # pi(y|x) of the prompt that an image shows
        "nonunified": 100 * (1 - (drawn * verdicts).sum(axis=1).mean()),  # paper 1.1: own images that are rejected
    }


def one_step(world, config, seed):
    """Rows of one step on one random pair from random weights, where the DPO margin is not 0.

    Errors: of dG, of dU of the understanding branch, and of dU as stated against that branch (stated_branch) and against
    the Bayes inverse of generation (stated_bayes). same_sign: how often dG and an actual dU have one sign, for the trained
    prompt, whose ||K(Y0,Yu)||_F is the largest, and for the others.
    """
    rng = named_rng(seed, "one step")
    start = config["one_step_scale"] * rng.standard_normal(world.features.shape[-1])
    reference = branches.generation_log_probs(world, np.zeros_like(start))
    tokens = branches.token_log_probs(world, start)
    generation = world.along_image(tokens)
    prompt = rng.integers(len(world.prompts))
    chosen, rejected = (rng.choice(np.flatnonzero(world.right[:, prompt] == right)) for right in (True, False))
    image, pair = np.zeros(generation.shape), np.zeros((*generation.shape, len(world.images)))
    image[prompt, chosen], pair[prompt, chosen, rejected] = 1, 1
    pulls = {"sft": image, "dpo": branches.dpo_weights(generation, reference, pair, config["beta"])}
    rows = []
    for method, pull in pulls.items():
        residuals = branches.residuals(world, tokens, pull)
        step = np.tensordot(residuals, world.features, axes=3)
        for rate in config["one_step_rates"]:
            after = branches.generation_log_probs(world, start - rate * step)
            change = after - generation
            bayes = branches.bayes_log_probs(after) - branches.bayes_log_probs(generation)
            predicted = propositions.generation_change(world, tokens, residuals, rate)
            stated = propositions.stated_understanding_change(predicted, generation)
            setting = {"method": method, "rate": rate}
            rows.append(setting | {"metric": "generation", "value": _distance(predicted, change)})
            rows.append(setting | {"metric": "stated_bayes", "value": _distance(stated, bayes)})
            rows += [
                setting | {"metric": f"same_sign_bayes_{name}", "value": value}
                for name, value in _same_sign(change.T, bayes, prompt).items()
            ]
            for sharing in (0.0, 0.5, 1.0):
                before, now = (
                    branches.understanding_log_probs(world, sharing * weights, 0.0)
                    for weights in (start, start - rate * step)
                )
                own = propositions.branch_understanding_change(world, before, residuals, rate, sharing, 0.0)
                here = setting | {"sharing": sharing, "angle": 0.0}
                rows.append(here | {"metric": "branch", "value": _distance(own, now - before)})
                rows.append(here | {"metric": "stated_branch", "value": _distance(stated, now - before)})
                rows += [
                    here | {"metric": f"same_sign_{name}", "value": value}
                    for name, value in _same_sign(change.T, now - before, prompt).items()
                ]
    return rows


def _distance(predicted, actual):
    return np.sqrt(np.mean((predicted - actual) ** 2))


def _same_sign(generation_change, understanding_change, prompt):
    same = np.sign(generation_change) == np.sign(understanding_change)
    return {"trained": same[:, prompt].mean(), "other": np.delete(same, prompt, axis=1).mean()}


def training(world, trained, config):
    """Rows of every supervision, method and measured step, over sharing (aligned) and over angles (all shared).

    `start` "bayes" is understanding as the Bayes inverse of generation: what the paper's bridge would have.
    """
    rows = []
    dials = [(sharing, 0.0) for sharing in config["sharing"]] + [(1.0, angle) for angle in config["angles"]]
    for (supervision, method), path in trained.items():
        for step, weights in path.items():
            generation = branches.generation_log_probs(world, weights)
            here = {"method": method, "supervision": supervision, "step": step}
            values = measures(world, generation, branches.bayes_log_probs(generation))
            rows += [here | {"start": "bayes", "metric": name, "value": value} for name, value in values.items()]
            for sharing, angle in dict.fromkeys(dials):
                understanding = branches.understanding_log_probs(world, sharing * weights, angle)
                values = measures(world, generation, understanding)
                dial = {"start": "own", "sharing": sharing, "angle": angle}
                rows += [here | dial | {"metric": name, "value": value} for name, value in values.items()]
    return rows


def bridge(world, trained, config):
    """Rows of the share of the bridge's dU that understanding does not follow, sum (dU - bridge)^2 / sum bridge^2.

    `start` own: the pre-trained understanding; consistent: one that begins as the Bayes inverse of generation.
    """
    path = trained["own", "sft"]
    generation = {step: branches.generation_log_probs(world, weights) for step, weights in path.items()}
    rows = []
    for step in config["steps"]:
        promised = branches.bayes_log_probs(generation[step]) - branches.bayes_log_probs(generation[0])
        for start in ("own", "consistent"):
            logits = world.understanding_logits if start == "own" else branches.bayes_log_probs(generation[0])
            for sharing in config["sharing"]:
                before, after = (
                    branches.understanding_log_probs(world, sharing * path[when], 0.0, logits) for when in (0, step)
                )
                value = ((after - before - promised) ** 2).sum() / (promised**2).sum()
                rows.append({"start": start, "sharing": sharing, "step": step, "metric": "unexplained", "value": value})
    return rows


def squeezing(world, trained, config):
    """Rows of mean log pi(x|y) over prompts while DPO is trained on own verdicts, without and with an NLL term."""
    chosen, rejected = supervise(world, "own")
    nll_weight = config["nll_weight"]
    paths = {0.0: trained["own", "dpo"], nll_weight: train(world, chosen, rejected, "dpo", config, nll_weight)}
    rows = []
    for nll_weight, path in paths.items():
        for step, weights in path.items():
            generation = branches.generation_log_probs(world, weights)
            values = {
                "chosen": (generation * chosen).sum() / chosen.sum(),
                "rejected": (generation * rejected).sum() / rejected.sum(),
                "likeliest": generation.max(axis=1).mean(),
            }
            here = {"nll_weight": nll_weight, "step": step}
            rows += [here | {"metric": name, "value": value} for name, value in values.items()]
    return rows


def simulate(config):
    """All parts in all worlds: a frame of `SETTINGS`, metric and value."""
    check(config)
    rows = []
    for seed in tqdm(range(config["worlds"]), desc="worlds"):
        world = branches.new_world(config, seed)
        trained = {
            (supervision, method): train(world, *supervise(world, supervision), method, config)
            for supervision in SUPERVISIONS
            for method in METHODS
        }
        parts = {
            "one_step": one_step(world, config, seed),
            "training": training(world, trained, config),
            "bridge": bridge(world, trained, config),
            "squeezing": squeezing(world, trained, config),
        }
        rows += [{"part": part, "seed": seed} | row for part, found in parts.items() for row in found]
    return pd.DataFrame(rows, columns=[*SETTINGS, "metric", "value"])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=json.loads, required=True, help="canonical JSON of the simulation section")
    parser.add_argument("--output", type=Path, required=True, help="CSV to write")
    arguments = parser.parse_args()
    table = simulate(arguments.config)
    with atomic_file(arguments.output) as partial:
        table.to_csv(partial, index=False, float_format="%.10g")


if __name__ == "__main__":
    main()
