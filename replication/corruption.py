"""Poor supervision made on purpose: the dial of the co-degradation study (paper section 7).

v1 of the paper says that both branches degrade under poor supervision and not how it was made; these are the natural ways.
Pure functions of a frame of scored candidates (columns as in supervision.py) or of the training set selected from it.
"""

import hashlib

import numpy as np
import pandas as pd

CORRUPTIONS = ("none", "swapped", "flipped", "accept_everything", "lenient", "oracle", "shuffled_prompts")
OF_PROMPT = ["prompt_id", "prompt", "subtask"]


def named_rng(seed, purpose):
    """The random stream of one purpose in run `seed`; streams of different purposes are independent."""
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def check(corruption, strength):
    """Raises ValueError when the corruption is unknown, or its strength is missing, out of range or without use."""
    if corruption not in CORRUPTIONS:
        raise ValueError(f"There is no corruption {corruption!r}; set supervision.corruption to one of {CORRUPTIONS}.")
    upper = {"flipped": 1, "lenient": float("inf")}.get(corruption)
    if upper is None and strength is not None:
        raise ValueError(
            f"The corruption {corruption!r} takes no strength; set supervision.corruption_strength to null."
        )
    if upper is not None and (strength is None or not 0 <= strength <= upper):
        raise ValueError(
            f"The corruption {corruption!r} needs a supervision.corruption_strength from 0 to {upper}, not {strength}."
        )


def corrupt_verdicts(candidates, corruption, strength, rng):
    """`candidates` with the verdicts and margins (alignment_logit) of another judge, all else as it was.

    swapped: every verdict turned round. flipped: each one turned round with probability `strength`. accept_everything: yes
    to all, and no margin prefers one. lenient: yes from a margin of -`strength` on. oracle: the truth, where margins rank
    candidates of equal truth only. none and shuffled_prompts, which corrupts the training set, leave verdicts alone.

    Raises ValueError as `check` does.
    """
    check(corruption, strength)
    verdict, margin = candidates["verdict"], candidates["alignment_logit"]
    match corruption:
        case "swapped":
            return candidates.assign(verdict=1 - verdict, alignment_logit=-margin)
        case "flipped":
            kept = rng.random(len(candidates)) >= strength
            return candidates.assign(
                verdict=verdict.where(kept, 1 - verdict), alignment_logit=margin.where(kept, -margin)
            )
        case "accept_everything":
            return candidates.assign(verdict=1, alignment_logit=0.0)
        case "lenient":
            return candidates.assign(
                verdict=(verdict | (margin > -strength)).astype(int), alignment_logit=margin + strength
            )
        case "oracle" if "truth" not in candidates:
            raise ValueError(
                "No judge knows the truth about these candidates, so there is no supervision by the oracle."
            )
        case "oracle":
            return candidates.assign(verdict=candidates["truth"])
    return candidates


def other_prompts(prompts, rng):
    """For each row of the series `prompts` the position of a row with another prompt; every position is used once.

    Equal prompts are put side by side, the prompts in random order, and each row takes the prompt as many places before it
    as the commonest prompt has rows. Raises ValueError when that prompt has more than half of them.
    """
    order = rng.permutation(len(prompts))
    order = order[np.argsort(pd.factorize(prompts.iloc[order])[0], kind="stable")]
    commonest = prompts.value_counts().max()
    if 2 * commonest > len(prompts):
        raise ValueError(
            f"One prompt has {commonest} of {len(prompts)} images, so not every image can get another prompt; use more prompts."
        )
    positions = np.empty(len(prompts), int)
    positions[order] = np.roll(order, commonest)
    return positions


def shuffle_prompts(samples, rng):
    """The training set `samples` with its prompts dealt anew to its images: no sample keeps its own prompt."""
    dealt = samples[OF_PROMPT].iloc[other_prompts(samples["prompt"], rng)].set_axis(samples.index)
    return samples.assign(**dealt)
