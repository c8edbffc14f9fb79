import math

import numpy as np
import pandas as pd
import pytest
import torch

from replication.models.tiny import CODEBOOK_SIZE
from replication.post_training import new_trainer, post_train

CONFIG = {
    "epochs": 6,
    "learning_rate": 1e-3,
    "per_device_train_batch_size": 4,
    "lr_scheduler_type": "constant",
    "warmup_ratio": 0.0,
    "weight_decay": 0.0,
    "max_grad_norm": 1.0,
    "trained_modules": "language_model",
}
SFT = {**CONFIG, "method": "sft"}
DPO = {**CONFIG, "method": "dpo", "beta": 0.1, "nll_weight": 0.5}
PROMPTS = ["an image of a triangle", "a picture of a striped purple triangle"] * 2


@pytest.fixture
def codes():
    return np.random.default_rng(0).integers(CODEBOOK_SIZE, size=(8, 36)).astype(np.int16)


@pytest.fixture
def training_set():
    return pd.DataFrame({"prompt": PROMPTS, "chosen": [0, 1, 2, 3], "rejected": [4, 5, 6, 7]})


def log_probs(model, codes):
    with torch.no_grad():
        return model.image_log_probs(PROMPTS, torch.from_numpy(codes).long())


def test_first_sft_loss_is_the_mean_nll_of_the_codes(model, codes, training_set, tmp_path):
    expected = -log_probs(model, codes[:4]).mean().item()
    log = post_train(model, training_set, codes, SFT, 0, tmp_path)
    assert log["loss"][0] == pytest.approx(expected, rel=1e-5)
    assert -log_probs(model, codes[:4]).mean() < expected - 0.5
    assert not any(tmp_path.iterdir())  # TRL leaves nothing behind


def test_first_dpo_loss_is_ln_2_plus_the_nll_term(model, codes, training_set, tmp_path):
    before, nll = log_probs(model, codes[:4]), -log_probs(model, codes[:4]).mean().item()
    rejected = log_probs(model, codes[4:])
    log = post_train(model, training_set, codes, DPO, 0, tmp_path)
    assert log["loss"][0] == pytest.approx(math.log(2) + 0.5 * nll, rel=1e-5)
    assert log["rewards/margins"][0] == pytest.approx(0, abs=1e-5)
    assert log["logps/chosen"][0] == pytest.approx(before.sum(dim=1).mean().item(), rel=1e-5)
    assert log["logps/rejected"][0] == pytest.approx(rejected.sum(dim=1).mean().item(), rel=1e-5)
    assert log["rewards/margins"].iloc[-1] > 0


def test_dpo_loss_is_measured_against_the_model_it_started_from(model, codes, training_set, tmp_path):
    policy = model.image_policy("language_model")
    trainer = new_trainer(policy, training_set, codes, DPO, 0, tmp_path)
    reference = [log_probs(model, part).sum(dim=1) for part in (codes[:4], codes[4:])]
    with torch.no_grad():
        for parameter in model.model.model.language_model.parameters():
            parameter.mul_(1.05)
    chosen, rejected = log_probs(model, codes[:4]), log_probs(model, codes[4:])
    margin = 0.1 * ((chosen.sum(dim=1) - reference[0]) - (rejected.sum(dim=1) - reference[1]))
    expected = -torch.nn.functional.logsigmoid(margin).mean() - 0.5 * chosen.mean()
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(4)])
    assert margin.abs().max() > 0.05
    torch.testing.assert_close(trainer.compute_loss(policy, batch).detach(), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("config", [SFT, DPO])
def test_training_changes_the_language_model_only_and_repeats_exactly(
    checkpoint, codes, training_set, tmp_path, config
):
    from replication.models.janus import JanusModel

    models = [
        JanusModel.load(checkpoint, {"question": "{prompt} ?", "accept": "yes", "reject": "no"}) for _ in range(3)
    ]
    for model, seed in zip(models[:2], (0, 0), strict=True):
        post_train(
            model, training_set, codes, {**config, "epochs": 1, "per_device_train_batch_size": 2}, seed, tmp_path
        )
    first, second, untouched = [dict(model.model.named_parameters()) for model in models]
    for name, parameter in first.items():
        assert torch.equal(parameter, second[name])
        assert torch.equal(parameter, untouched[name]) != name.startswith("model.language_model."), name


def test_a_loss_that_is_not_finite_is_one_sentence(model, codes, training_set, tmp_path):
    with pytest.raises(SystemExit, match="lower the learning rate"):
        post_train(model, training_set, codes, {**SFT, "learning_rate": 1e30, "max_grad_norm": 1e30}, 0, tmp_path)
