"""Is a base model a credible unified model? Measured on held-out prompts and scenes, shipped beside its weights."""

import numpy as np
import pandas as pd

from replication.models.worded import WordedModel
from replication.pretraining.tokenizer import encode
from replication.prompts import probe_set, prompt_table
from replication.scenes import STRATA, SUBTASKS
from replication.scenes.oracle import judge


def measure_quality(unified: WordedModel, seed: int, prompts_per_subtask: int) -> pd.DataFrame:
    """Long table metric, subtask, value, n.

    understanding_balanced_accuracy: verdicts on held-out rendered scenes against near misses.
    generation: share of own images of held-out prompts that the oracle accepts.
    reconstruction: share of rendered scenes about which the oracle says the same after tokenizing and decoding.
    own_verdict_yes_share: share of own images that the model accepts.
    """
    prompts = prompt_table(prompts_per_subtask, held_out=True, seed=(seed, 4))
    probe, pictures = probe_set(prompts_per_subtask, seed=(seed, 5))
    asked = probe["prompt"].tolist()

    verdicts = (unified.alignment_logits(pictures, asked) > 0).numpy()
    right = pd.Series(verdicts == (probe["label"] == 1))
    # each subtask has as many true as false pairs, so that plain accuracy is balanced accuracy
    rows = _by_subtask("understanding_balanced_accuracy", right, probe["subtask"])

    reconstructed = unified.decode_images(encode(unified, pictures))
    kept = judge(reconstructed, asked) == judge(pictures, asked)
    rows += _by_subtask("reconstruction", pd.Series(kept), probe["subtask"])

    texts = prompts["prompt"].tolist()
    codes, _ = unified.sample_images(texts, list(range(len(texts))), guidance_scale=1.0, temperature=1.0)
    images = unified.decode_images(codes)
    rows += _by_subtask("generation", pd.Series(judge(images, texts)), prompts["subtask"])
    accepted = (unified.alignment_logits(images, texts) > 0).numpy()
    rows += _by_subtask("own_verdict_yes_share", pd.Series(accepted), prompts["subtask"])
    return pd.DataFrame(rows, columns=["metric", "subtask", "value", "n"])


def _by_subtask(metric: str, outcome: pd.Series, subtask: pd.Series) -> list[tuple]:
    means, counts = outcome.groupby(subtask.to_numpy()).mean(), outcome.groupby(subtask.to_numpy()).size()
    rows = [(metric, name, means[name], counts[name]) for name in SUBTASKS]
    for stratum, names in {**STRATA, "overall": SUBTASKS}.items():
        rows.append((metric, stratum, np.mean([means[name] for name in names]), sum(counts[name] for name in names)))
    return rows
