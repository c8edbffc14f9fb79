"""The stations of the paper's scale in a row, on a small checkpoint in the hub's layout and real prompts of T2I-CompBench."""

import json
import math
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from hub_checkpoints import HUB_MODEL, NUM_IMAGE_TOKENS
from settings import REAL_PROMPTS

from replication import benchmark_prompts, candidates, downloads, post_training, supervision
from replication.config import load_stage
from replication.judges import oracle
from replication.models.janus import JanusModel
from replication.verdicts import parse_score

SMALL = (
    "model.device=cpu",
    "model.dtype=float32",
    "model.compile=false",
    f"prompts.mirror={REAL_PROMPTS}",
    "prompts.train_prompts=2",
    "prompts.evaluation_prompts=1",
    "candidates.candidates_per_prompt=6",
    "candidates.batch_size=24",
    "candidates.answer_tokens=8",
    "epochs.sft=2",
    "epochs.dpo=2",
    "post_training.learning_rate=1e-3",
    "post_training.lora.r=4",
)


def run(monkeypatch, station, stage, experiment, *arguments):
    config = load_stage(stage, "paper", experiment=experiment, overrides=SMALL)
    monkeypatch.setattr(sys, "argv", [stage, "--config", json.dumps(config), *map(str, arguments)])
    station.main()


@pytest.mark.skipif(REAL_PROMPTS is None, reason="the benchmarks' files are not beside the repository")
def test_real_prompts_become_candidates_training_sets_and_trained_models(taught_checkpoint, tmp_path, monkeypatch):
    torch.set_num_threads(1)
    monkeypatch.setattr(oracle, "judge", lambda images, prompts: np.zeros(len(images), bool))  # knows no real prompt
    files, prompts = tmp_path / "files", tmp_path / "prompts"
    run(monkeypatch, downloads, "prompts", "baseline", "--output", files)
    run(monkeypatch, benchmark_prompts, "prompts", "baseline", "--files", files, "--output", prompts)
    drawn = tmp_path / "candidates"
    arguments = ["--seed", 0, "--model", taught_checkpoint, "--prompts", prompts / "train.csv", "--output", drawn]
    run(monkeypatch, candidates, "candidates", "baseline", *arguments)

    rows, codes = pd.read_csv(drawn / "candidates.csv"), np.load(drawn / "codes.npy")
    assert len(rows) == len(codes) == 8 * 2 * 6 and codes.shape[1] == NUM_IMAGE_TOKENS
    assert rows["subtask"].nunique() == 8
    assert list(rows["answer"].map(parse_score) == 1) == list(rows["verdict"] == 1)  # the written answer is the verdict
    assert rows["parsed"].mean() > 0.5 and 0 < rows["verdict"].mean() < 1

    before = JanusModel.load(taught_checkpoint, HUB_MODEL).model.state_dict()
    for method in ("sft", "dpo"):
        chosen = tmp_path / method / "training_set.csv"
        run(monkeypatch, supervision, "supervision", method, "--seed", 0, "--candidates", drawn, "--output", chosen)
        training_set = pd.read_csv(chosen)
        assert len(training_set) and (rows["verdict"][training_set["chosen"]] == 1).all()
        if method == "dpo":  # the most positive against the most negative of the same prompt (paper section 3)
            margins = rows.groupby("prompt_id")["alignment_logit"]
            lowest, highest = margins.transform("min"), margins.transform("max")
            assert (rows["alignment_logit"] == lowest)[training_set["rejected"]].all()
            assert (rows["alignment_logit"] == highest)[training_set["chosen"]].all()
        trained = tmp_path / method / "model"
        arguments = ["--seed", 0, "--model", taught_checkpoint, "--candidates", drawn, "--training-set", chosen]
        run(monkeypatch, post_training, "post_training", method, *arguments, "--output", trained)
        log = pd.read_csv(trained / "training_log.csv")
        assert np.isfinite(log["loss"]).all()
        if method == "dpo":
            # policy and reference are the same at step 1, so that the loss is ln 2 and the NLL term
            assert abs(log["rewards/margins"].iloc[0]) < 1e-5
            assert log["loss"].iloc[0] > math.log(2)
        after = JanusModel.load(trained, HUB_MODEL).model.state_dict()
        moved = {name for name in before if not torch.equal(before[name], after[name])}
        assert moved and all("language_model" in name and "_proj" in name for name in moved)  # merged adapters alone
