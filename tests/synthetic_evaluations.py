"""Invented evaluations, written as their CSV files, in which every claim of configs/claims.yaml holds."""

import shutil

import numpy as np
import pandas as pd

from replication.claim_registry import write_registered
from replication.scenes import STRATUM_OF, SUBTASKS

PROMPTS = 16  # per subtask, as many as pairs of held-out scenes
RUNS = {0: "base-0", 1: "base-1", 2: "base-2", 3: "base-0", 4: "base-1"}
FIRST = np.linspace(0.9, 0.3, len(SUBTASKS))  # share of right images before training; later subtasks are harder

# Share of the wrong images that become right, of the right ones that become wrong, false positives, false negatives.
EXPERIMENTS = {
    "baseline": (0.0, 0.0, 0.20, 0.02),
    "sft": (0.4, 0.0, 0.08, 0.04),
    "dpo": (0.4, 0.0, 0.08, 0.04),
    "sft_swapped": (0.0, 0.4, 0.45, 0.20),
    "dpo_swapped": (0.0, 0.4, 0.45, 0.20),
    "sft_flipped_50": (0.0, 0.1, 0.30, 0.10),
    "sft_shuffled": (0.0, 0.4, 0.95, 0.02),
    "c_sft": (0.7, 0.0, 0.08, 0.02),
    "c_dpo": (0.7, 0.0, 0.08, 0.02),
    "c_sft_random": (0.45, 0.0, 0.08, 0.02),
    "c_sft_steps": (0.45, 0.0, 0.08, 0.02),
    "c_sft_generation_only": (0.45, 0.0, 0.08, 0.02),
    "c_sft_understanding_only": (0.45, 0.0, 0.08, 0.02),
    "s_n_2": (0.4, 0.0, 0.08, 0.04),
    "c_sft_n_2": (0.7, 0.0, 0.08, 0.02),
    "c_sft_n_2_random": (0.45, 0.0, 0.08, 0.02),
    "c_sft_n_2_steps": (0.45, 0.0, 0.08, 0.02),
    "i_orthogonal": (0.4, 0.0, 0.19, 0.02),
    "i_orthogonal_swapped": (0.0, 0.4, 0.21, 0.03),
}
IMPERFECT = (0.3, 0.05)  # the errors of the other judge, which asks of every image
UNLOCKED = {"c_sft": 0.7, "c_sft_generation_only": 0.3, "c_sft_understanding_only": 0.4}


def truths(luck, first, mended, broken):
    """Right where luck is below a share that falls from `first` by `broken` and rises by `mended` of the rest."""
    return (luck < first * (1 - broken) + (1 - first) * mended).astype(int)


def answers(luck, truth, false_positives, false_negatives):
    return np.where(truth == 1, luck >= false_negatives, luck < false_positives).astype(int)


def write_kernel(folder, seed, model, rng):
    """`folder`/kernel of an invented run in which the theory holds: its examples, and 12 samples of a batch for each."""
    size, samples = 40, 12
    examples = pd.DataFrame({"prompt_id": rng.permutation(len(SUBTASKS) * PROMPTS)[:size]})
    examples["subtask"] = np.array(SUBTASKS)[examples["prompt_id"] // PROMPTS]
    examples["group"] = np.repeat(["corrected", "not_corrected", "true_positive", "unseen"], size // 4)
    examples["delta_generation"] = rng.normal(1, 1, size) - 3 * (examples["group"] == "corrected")
    examples["delta_caption"] = examples["delta_generation"] + rng.normal(0, 0.3, size)
    examples["own_caption"], examples["own_verdict"] = rng.normal(0.4, 0.1, size), rng.normal(0.3, 0.1, size)
    index = pd.MultiIndex.from_product([range(size), range(samples)], names=["example", "sample"])
    pairs = pd.DataFrame({"text_similarity": rng.random(len(index))}, index=index).reset_index()
    pairs["image_similarity"] = rng.random(len(index))
    pairs["generation-generation"] = (
        pairs["text_similarity"] + pairs["image_similarity"] + rng.normal(0, 0.2, len(index))
    )
    (folder / "kernel").mkdir()
    for name, table in (("examples", examples), ("pairs", pairs)):
        table.assign(experiment="sft", seed=seed, model=model).to_csv(folder / f"kernel/{name}.csv", index=False)
    write_registered(folder / "kernel")


def write_evaluations(folder, experiments=EXPERIMENTS, runs=RUNS):
    """`folder`/<experiment>/seed=<n>/evaluation of every experiment and run, and the kernel of sft; returns the
    claims_registered.json files."""
    written = []
    for seed, model in runs.items():
        prompts = pd.DataFrame({"prompt_id": range(len(SUBTASKS) * PROMPTS)})
        prompts["subtask"] = np.repeat(SUBTASKS, PROMPTS)
        prompts["stratum"] = prompts["subtask"].map(STRATUM_OF)
        images = (
            prompts.loc[prompts.index.repeat(4)].reset_index(drop=True).assign(image=np.tile(range(4), len(prompts)))
        )
        probes = prompts.loc[prompts.index.repeat(2)].drop(columns="prompt_id").reset_index(drop=True)
        probes = probes.assign(probe_id=range(len(probes)), label=np.tile([1, 0], len(prompts)))
        rng = np.random.default_rng(seed)
        draw, judge, probe, replay = (rng.random(len(images)) for _ in range(4))
        other = np.random.default_rng([seed, 1]).random(len(images))
        first = images["subtask"].map(dict(zip(SUBTASKS, FIRST, strict=True)))
        old = images.assign(truth=truths(draw, first, 0, 0))
        old["before"] = answers(judge, old["truth"], *EXPERIMENTS["baseline"][2:])
        old["judge_verdict"] = answers(other, old["truth"], *IMPERFECT)
        for experiment in experiments:
            mended, broken, *errors = EXPERIMENTS[experiment]
            evaluation = folder / experiment / f"seed={seed}" / "evaluation"
            evaluation.mkdir(parents=True)
            own = images.assign(truth=truths(draw, first, mended, broken))
            own["verdict"] = answers(judge, own["truth"], *errors)
            own["judge_verdict"] = answers(other, own["truth"], *IMPERFECT)
            own[own["image"] < (4 if experiment == "baseline" else 1)].to_csv(evaluation / "images.csv", index=False)
            if experiment != "baseline":
                after = answers(judge, old["truth"], *errors)
                old.assign(after=after).to_csv(evaluation / "pretrained_verdicts.csv", index=False)
            verdicts = answers(probe[: len(probes)], probes["label"], *errors)
            probes.assign(verdict=verdicts).to_csv(evaluation / "probe_verdicts.csv", index=False)
            if experiment in UNLOCKED:
                pool = prompts.assign(unlocked=(replay[: len(prompts)] < UNLOCKED[experiment]) * 2)
                pool.to_csv(evaluation.parent / "discard_pool.csv", index=False)
            identity = {"preset": "test", "experiment": experiment, "model": model, "method": experiment, "seed": seed}
            pd.DataFrame([identity]).to_csv(evaluation / "metrics.csv", index=False)
            if written:
                shutil.copy(written[0], evaluation)
            else:
                write_registered(evaluation)
            written.append(evaluation / "claims_registered.json")
        if "sft" in experiments:
            write_kernel(folder / f"sft/seed={seed}", seed, model, rng)
            written.append(folder / f"sft/seed={seed}/kernel/claims_registered.json")
    return written
