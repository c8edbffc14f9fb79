"""Station: the model's own verdicts on its candidates become training sets (Algorithm 1 of the paper).

Every step is a pure function of a frame of scored candidates: prompt_id, prompt, subtask, candidate, alignment_logit
(log p(accept) - log p(reject)), verdict (1: accepted) and truth (the oracle's, reported, never used to select except by
the corruption `oracle`). The row number of a candidate is its row in codes.npy. Only the first candidates of each prompt are
used, and verdicts taken at another threshold, where an experiment asks for it (`usable`). Verdicts are corrupted before the
selection, and prompts shuffled after it, where it asks for poor supervision (corruption.py).
"""

import argparse
import json
from importlib import import_module
from pathlib import Path

import pandas as pd

from replication.corruption import corrupt_verdicts, named_rng, shuffle_prompts
from replication.files import atomic_file

RULES = ("accept_all", "contrast", "best", "top", "random")
METHODS = ("sft", "dpo")


def usable(candidates, number, threshold):
    """The first `number` candidates of each prompt, with the verdict 1[alignment_logit > threshold], or their own where
    `threshold` is None; row numbers stay.

    Raises ValueError when fewer were drawn.
    """
    fewest = candidates.groupby("prompt_id").size().min()
    if not 0 < number <= fewest:
        raise ValueError(
            f"supervision.candidates_per_prompt is {number}, but {fewest} candidates were drawn for each prompt; "
            "set it to 1 or more, and candidates.candidates_per_prompt to no fewer."
        )
    first = candidates[candidates["candidate"] < number]
    return first if threshold is None else first.assign(verdict=(first["alignment_logit"] > threshold).astype(int))


def accepted_share(candidates):
    """Share of accepted candidates of each row's prompt, aligned with the rows of `candidates`."""
    return candidates.groupby("prompt_id", sort=False)["verdict"].transform("mean")


def contrasting(candidates):
    """Candidates of prompts that have both an accepted and a rejected one."""
    share = accepted_share(candidates)
    return candidates[(share > 0) & (share < 1)]


def discard_pool(candidates):
    """Pool B of Algorithm 1: prompts without an accepted candidate, as a frame prompt_id, prompt, subtask."""
    discarded = candidates[accepted_share(candidates) == 0]
    return discarded.drop_duplicates("prompt_id")[["prompt_id", "prompt", "subtask"]]


def ranked(candidates, best_first):
    """Candidates of each prompt by verdict margin, prompts in their first order; ties go to the lower candidate number."""
    order = candidates.assign(_prompt=pd.factorize(candidates["prompt_id"])[0])
    order = order.sort_values(
        ["_prompt", "alignment_logit", "candidate"], ascending=[True, not best_first, True], kind="stable"
    )
    return candidates.loc[order.index]


def randomly_ranked(candidates, rng):
    """`candidates` with random margins in place of the model's, so that the best is any of them."""
    return candidates.assign(alignment_logit=rng.random(len(candidates)))


def sft_set(candidates, rule, images_per_prompt):
    """Training set for SFT: a frame prompt_id, prompt, subtask, chosen (row number), one row per sample.

    `accept_all` is Algorithm 1 read literally: every accepted image of every prompt. `contrast` keeps only prompts whose
    candidates disagree, and of each the `images_per_prompt` accepted ones with the highest margin (the literal rule
    cannot give the paper's sample counts: 2,265 from about 6,000 prompts). `best` asks for no disagreement, and `top` for no
    verdict: it takes the highest margins of every prompt, accepted or not.
    """
    if rule == "accept_all":
        chosen = candidates[candidates["verdict"] == 1]
    else:
        pool = candidates if rule in ("best", "top") else contrasting(candidates)
        pool = pool if rule == "top" else pool[pool["verdict"] == 1]
        chosen = ranked(pool, best_first=True).groupby("prompt_id", sort=False).head(images_per_prompt)
    return chosen[["prompt_id", "prompt", "subtask"]].assign(chosen=chosen.index).reset_index(drop=True)


def dpo_set(candidates):
    """Training set for DPO: one pair per prompt, the most positive accepted candidate against the most negative rejected.

    A frame prompt_id, prompt, subtask, chosen, rejected (row numbers). A pair needs both kinds, so prompts whose
    candidates are all accepted or all rejected give none, under any rule.
    """
    pool = contrasting(candidates)
    best = ranked(pool[pool["verdict"] == 1], best_first=True).drop_duplicates("prompt_id")
    worst = ranked(pool[pool["verdict"] == 0], best_first=False).drop_duplicates("prompt_id")
    pairs = best[["prompt_id", "prompt", "subtask"]].assign(chosen=best.index)
    return pairs.merge(worst[["prompt_id"]].assign(rejected=worst.index), on="prompt_id", validate="one_to_one")


def select(candidates, method, rule, images_per_prompt, rng=None):
    """Training set of `method` ("sft" or "dpo") under `rule`, one of `RULES`: see `sft_set`. `random` is `contrast` with
    random candidates instead of the best and the worst ones, which `rng` draws. A rule with a dot in its name is a module
    of your own, whose `select(candidates, method, images_per_prompt, rng)` is called (docs/bring_your_own.md).

    Raises ValueError when the method, rule or number is unknown, or when nothing is selected.
    """
    own = "." in rule
    if method not in METHODS or rule not in RULES and not own:
        raise ValueError(
            f"Supervision knows the methods {METHODS} and the rules {RULES}, not {method!r} with {rule!r}; "
            "correct supervision.method or supervision.rule."
        )
    if images_per_prompt < 1:
        raise ValueError(f"supervision.images_per_prompt is {images_per_prompt}; set it to 1 or more.")
    pool = randomly_ranked(candidates, rng) if rule == "random" else candidates
    if own:
        samples = import_module(rule).select(candidates, method, images_per_prompt, rng)
    else:
        samples = sft_set(pool, rule, images_per_prompt) if method == "sft" else dpo_set(pool)
    if samples.empty:
        raise ValueError(
            f"The rule {rule!r} selected nothing for {method} from {candidates['prompt_id'].nunique()} prompts: the model "
            f"accepted {candidates['verdict'].mean():.1%} of its {len(candidates)} candidates; use a stronger base model, "
            "another candidates.threshold or more candidates_per_prompt."
        )
    return samples


def quality(candidates, samples):
    """What the selection looks like: a frame metric, value, n (n: the denominator).

    precision_chosen is the share of chosen images for which the prompt truly holds, precision_rejected the share of
    rejected ones for which it does not, both among the samples that pair an image with its own prompt (the truth of others
    is not known here; `replication.quality_check` asks the oracle), and neither is there where no judge knows the truth;
    yield_<subtask> is samples per prompt.
    """
    accepted = candidates.groupby("prompt_id", sort=False)["verdict"].mean()
    prompts = len(accepted)
    rows = [
        ("prompts", prompts, prompts),
        ("prompts_used", samples["prompt_id"].nunique(), prompts),
        ("discarded_prompts", (accepted == 0).sum(), prompts),
        ("all_accepted_prompts", (accepted == 1).sum(), prompts),
        ("accepted_share", candidates["verdict"].mean(), len(candidates)),
        ("samples", len(samples), prompts),
    ]
    if "truth" in candidates:
        truth = candidates["truth"]
        known = samples[candidates["prompt_id"].loc[samples["chosen"]].to_numpy() == samples["prompt_id"].to_numpy()]
        rows.append(("precision_chosen", (truth.loc[known["chosen"]] == 1).mean(), len(known)))
        if "rejected" in samples:
            rows.append(("precision_rejected", (truth.loc[known["rejected"]] == 0).mean(), len(known)))
    for subtask, group in candidates.groupby("subtask", sort=False):
        count = group["prompt_id"].nunique()
        rows.append((f"yield_{subtask}", (samples["subtask"] == subtask).sum() / count, count))
    return pd.DataFrame(rows, columns=["metric", "value", "n"])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, type=json.loads, help="the supervision section")
    parser.add_argument("--seed", required=True, type=int, help="the run; only some settings draw at random")
    parser.add_argument("--candidates", required=True, type=Path, help="folder with candidates.csv")
    parser.add_argument("--output", required=True, type=Path, help="training_set.csv to write; two tables go beside it")
    arguments = parser.parse_args()

    config = arguments.config
    corruption, strength = config.pop("corruption"), config.pop("corruption_strength")
    number, threshold = config.pop("candidates_per_prompt"), config.pop("threshold")
    rng = named_rng(arguments.seed, corruption)
    candidates = pd.read_csv(arguments.candidates / "candidates.csv")
    try:
        candidates = usable(candidates, number, threshold)
        candidates = corrupt_verdicts(candidates, corruption, strength, rng)
        samples = select(candidates, **config, rng=named_rng(arguments.seed, "rule"))
        if corruption == "shuffled_prompts":
            samples = shuffle_prompts(samples, rng)
    except ValueError as error:
        raise SystemExit(str(error)) from error
    beside = arguments.output.parent
    tables = {
        beside / "discard_pool.csv": discard_pool(candidates),
        beside / "supervision.csv": quality(candidates, samples),
        arguments.output: samples.drop(columns="prompt_id"),
    }
    for path, table in tables.items():
        with atomic_file(path) as partial:
            table.to_csv(partial, index=False)


if __name__ == "__main__":
    main()
