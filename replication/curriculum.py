"""Station: the training set of one phase of a curriculum run, and what is left of the discard pool (paper Algorithm 2).

Phase 1 has the set and the pool B of Algorithm 1. Each later phase keeps the set before it and adds to it, by `adds`:
    replay: accepted images, newly drawn, of prompts in B, which leave it;
    random: as many newly drawn and accepted images of random prompts outside B (control of equal compute);
    repeat: as many samples of the set once more (control of equal compute);
    stages: the samples of Algorithm 1 of the next stratum of prompts, easy first (the idea of the paper's version 1).

Verdicts on earlier images are not refreshed. Samples refer to rows of the codes.npy beside them.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd

from replication.files import atomic_file
from replication.scenes import STRATA
from replication.supervision import discard_pool, dpo_set, ranked, select, usable

ADDS = ("replay", "random", "repeat", "stages")
NO_IMAGES = pd.DataFrame(columns=["prompt_id", "verdict", "truth"])


def newly_accepted(candidates, method, rule, images_per_prompt):
    """Samples from new candidates of replayed prompts: a frame prompt_id, prompt, subtask, chosen[, rejected].

    As `supervision.select`, but for `contrast` with SFT: all earlier candidates of a replayed prompt were rejected, so one
    accepted image is contrast enough, and the best `images_per_prompt` accepted ones are taken. A DPO pair is one of new
    images, so that one judge ranks both; a prompt whose new images are all accepted gives none.
    """
    if candidates.empty:
        names = ["prompt_id", "prompt", "subtask", "chosen", *(["rejected"] if method == "dpo" else [])]
        return pd.DataFrame(columns=names)
    if method == "dpo":
        return dpo_set(candidates)
    accepted = candidates[candidates["verdict"] == 1]
    if rule == "contrast":
        accepted = ranked(accepted, best_first=True).groupby("prompt_id", sort=False).head(images_per_prompt)
    return accepted[["prompt_id", "prompt", "subtask"]].assign(chosen=accepted.index).reset_index(drop=True)


def first_pool(candidates, prompts):
    """Pool B of Algorithm 1: the rows of `prompts` without an accepted candidate, and unlocked, the phase in which each
    leaves B: 0, not yet."""
    discarded = prompts["prompt_id"].isin(discard_pool(candidates)["prompt_id"])
    return prompts[discarded].assign(unlocked=0)


def still_discarded(pool):
    """Prompts that are in B now."""
    return pool[pool["unlocked"] == 0].drop(columns="unlocked")


def unlock(pool, samples, phase):
    """`pool` after the prompts of `samples` left B in `phase`."""
    leaves = (pool["unlocked"] == 0) & pool["prompt_id"].isin(samples["prompt_id"])
    return pool.assign(unlocked=pool["unlocked"].mask(leaves, phase))


def prompts_to_draw(pool, prompts, adds, random_prompts, rng):
    """Prompts whose images the next phase draws, rows of `prompts`: B for `replay`, `random_prompts` times as many others
    for `random`, none otherwise."""
    discarded = still_discarded(pool)
    if adds == "replay":
        return discarded
    if adds == "random":
        others = prompts[~prompts["prompt_id"].isin(discarded["prompt_id"])]
        return others.sample(n=min(random_prompts * len(discarded), len(others)), random_state=rng)
    return prompts.iloc[:0]


def draw_samples(samples, number, rng):
    """`number` of the samples at random, none twice.

    Raises ValueError with one sentence when there are fewer.
    """
    if len(samples) < number:
        raise ValueError(
            f"The control needs {number} samples, but the random prompts gave {len(samples)}; raise phases.random_prompts."
        )
    return samples.sample(n=number, random_state=rng)


def repeated(training_set, number, rng):
    """`number` of its samples once more, none twice as long as there are enough."""
    return training_set.sample(n=number, replace=number > len(training_set), random_state=rng)


def with_codes(training_set, codes, samples, new_codes, phase):
    """The union of a set and the new samples, and its codes: rows of `samples` count in `new_codes`, (n, T) as `codes`.

    Returns the set with column phase, the one in which a sample came, and only the codes that it refers to.
    """
    if samples.empty:
        return training_set, codes
    columns = [column for column in ("chosen", "rejected") if column in samples]
    rows = samples[columns].to_numpy(int)
    added = samples.assign(phase=phase)
    added[columns] = len(codes) + np.arange(rows.size).reshape(rows.shape)
    return pd.concat([training_set, added], ignore_index=True), np.concatenate([codes, new_codes[rows.ravel()]])


def counts_of(phase, new, samples, training_set, pool):
    """One row of phases.csv, of the images `new` in this phase and the samples that it adds."""
    return {
        "phase": phase,
        "prompts_drawn": new["prompt_id"].nunique(),
        "images_drawn": len(new),
        "images_accepted": int((new["verdict"] == 1).sum()),
        # the oracle's view: reported, never used, and unknown of images that no oracle judges
        "images_right": int((new["truth"] == 1).sum()) if "truth" in new else None,
        "samples_added": len(samples),
        "samples": len(training_set),
        "prompts_unlocked": int((pool["unlocked"] == phase).sum()),
        "prompts_discarded": int((pool["unlocked"] == 0).sum()),
    }


def algorithm_1(candidates, config, stages):
    """Samples of Algorithm 1; with `stages`, those of that many strata, easy first.

    Raises ValueError with one sentence when there are none.
    """
    samples = select(candidates, config["method"], config["rule"], config["images_per_prompt"])
    if config["adds"] != "stages":
        return samples
    wanted = [subtask for stratum in list(STRATA.values())[:stages] for subtask in stratum]
    staged = samples[samples["subtask"].isin(wanted)]
    if staged.empty:
        raise ValueError("The first stage has no samples; draw images of more prompts, or leave phases.adds: stages.")
    return staged


def next_set(config, phase, before, pool, drawn, expected, rng):
    """What `phase` (2 or later) adds to the training set `before`: samples whose rows count in the images `drawn`.

    before: the set so far; with `repeat`, rows count in its codes. drawn: candidates, of Algorithm 1 with `stages`. expected:
    the number of samples that a control adds. Returns samples and the pool afterwards.
    """
    selection = (config["method"], config["rule"], config["images_per_prompt"])
    if config["adds"] == "replay":
        samples = newly_accepted(drawn, *selection)
        return samples, unlock(pool, samples, phase)
    if config["adds"] == "random":
        return draw_samples(newly_accepted(drawn, *selection), expected, rng), pool
    if config["adds"] == "repeat":
        return repeated(before.drop(columns="phase"), expected, rng), pool
    samples = algorithm_1(drawn, config, phase)
    return samples[~samples["prompt_id"].isin(before["prompt_id"])], pool


def read_candidates(folder):
    """Scored candidates and their codes."""
    return pd.read_csv(folder / "candidates.csv"), np.load(folder / "codes.npy", allow_pickle=False)


def read_phase(folder):
    """Training set, codes, pool and counts that an earlier phase wrote."""
    training_set, pool, counts = (
        pd.read_csv(folder / f"{name}.csv") for name in ("training_set", "discard_pool", "phases")
    )
    return training_set, np.load(folder / "codes.npy", allow_pickle=False), pool, counts


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, type=json.loads, help="canonical JSON of the phases section")
    parser.add_argument("--seed", required=True, type=int)
    parser.add_argument("--phase", required=True, type=int, help="1 for the set of Algorithm 1")
    parser.add_argument("--prompts", required=True, type=Path, help="train.csv")
    parser.add_argument("--candidates", type=Path, help="folder of the images that samples are taken from, if any")
    parser.add_argument("--previous", type=Path, help="folder of the phase before")
    parser.add_argument("--like", type=Path, help="folder of the same phase of the run that this one is a control of")
    parser.add_argument("--output", required=True, type=Path, help="folder of the files of this phase")
    arguments = parser.parse_args()
    config, phase, prompts = arguments.config, arguments.phase, pd.read_csv(arguments.prompts)
    if config["adds"] not in ADDS:
        raise SystemExit(f"phases.adds is {config['adds']!r}; choose one of: {', '.join(ADDS)}.")
    if config["rule"] not in ("accept_all", "contrast"):
        raise SystemExit(f"supervision.rule is {config['rule']!r}; a curriculum knows accept_all and contrast.")
    rng = np.random.default_rng([arguments.seed, phase])
    drawn, new_codes = read_candidates(arguments.candidates) if arguments.candidates else (NO_IMAGES, None)
    expected = arguments.like and pd.read_csv(arguments.like / "phases.csv")["samples_added"].iloc[-1]
    try:
        drawn = usable(drawn, config["candidates_per_prompt"], None) if len(drawn) else drawn
        if phase == 1:
            before, codes, history = None, new_codes[:0], None
            samples, pool = algorithm_1(drawn, config, phase), first_pool(drawn, prompts)
        else:
            before, codes, pool, history = read_phase(arguments.previous)
            samples, pool = next_set(config, phase, before, pool, drawn, expected, rng)
    except ValueError as error:
        raise SystemExit(str(error)) from error
    training_set, codes = with_codes(before, codes, samples, new_codes if arguments.candidates else codes, phase)
    row = {"experiment": config["experiment"], "seed": arguments.seed}
    new = drawn if phase == 1 or config["adds"] != "stages" else NO_IMAGES
    row |= counts_of(phase, new, samples, training_set, pool)
    tables = {
        "training_set": training_set,
        "discard_pool": pool,
        "next_prompts": prompts_to_draw(pool, prompts, config["adds"], config["random_prompts"], rng),
        "phases": pd.concat([history, pd.DataFrame([row])], ignore_index=True),
    }
    for name, table in tables.items():
        with atomic_file(arguments.output / f"{name}.csv") as partial:
            table.to_csv(partial, index=False)
    with atomic_file(arguments.output / "codes.npy") as partial:
        np.save(partial, codes, allow_pickle=False)


if __name__ == "__main__":
    main()
