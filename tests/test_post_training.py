import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.stats import binomtest
from settings import DPO, MODEL, SFT, TRAINING

from replication.config import load_stage
from replication.models.janus import JanusModel
from replication.models.tiny import CODEBOOK_SIZE
from replication.post_training import (
    check_equal_compute,
    last_checkpoint,
    new_trainer,
    post_train,
    trainer_arguments,
    training_counts,
)

PROMPTS = ["an image of a triangle", "a picture of a striped purple triangle"] * 2


@pytest.fixture
def codes():
    return np.random.default_rng(0).integers(CODEBOOK_SIZE, size=(8, 36)).astype(np.int16)


@pytest.fixture
def training_set():
    return pd.DataFrame({"prompt": PROMPTS, "chosen": [0, 1, 2, 3], "rejected": [4, 5, 6, 7]})


def load(checkpoint):
    return JanusModel.load(checkpoint, MODEL)


def log_probs(model, codes):
    with torch.no_grad():
        return model.image_log_probs(PROMPTS, torch.from_numpy(codes).long())


def test_first_sft_loss_is_the_mean_nll_of_the_codes(model, codes, training_set, tmp_path):
    expected = -log_probs(model, codes[:4]).mean().item()
    log = post_train(model, training_set, codes, SFT, 0, tmp_path)
    assert log["loss"][0] == pytest.approx(expected, rel=1e-5)
    assert -log_probs(model, codes[:4]).mean() < expected - 0.5


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


@pytest.mark.parametrize("lora", [None, {"r": 4, "lora_alpha": 8}])
def test_dpo_of_a_later_phase_is_measured_against_the_reference_that_it_is_given(
    model, checkpoint, codes, training_set, tmp_path, lora
):
    reference = load(checkpoint)
    with torch.no_grad():
        for parameter in model.model.model.language_model.parameters():
            parameter.mul_(1.05)
    policies = [log_probs(model, part) - log_probs(reference, part) for part in (codes[:4], codes[4:])]
    margin = 0.1 * (policies[0].sum(dim=1) - policies[1].sum(dim=1))
    expected = -torch.nn.functional.logsigmoid(margin).mean() - 0.5 * log_probs(model, codes[:4]).mean()
    untouched = log_probs(reference, codes[:4])
    log = post_train(model, training_set, codes, {**DPO, "lora": lora}, 0, tmp_path, (2, 4), reference)
    assert margin.abs().max() > 0.05
    assert log["loss"][0] == pytest.approx(expected.item(), rel=1e-4)
    assert torch.equal(log_probs(reference, codes[:4]), untouched)


def test_phases_run_on_one_schedule_of_learning_rates(checkpoint, codes, training_set, tmp_path):
    config = {**SFT, "per_device_train_batch_size": 2, "lr_scheduler_type": "cosine", "warmup_ratio": 0.25}
    logs = []
    for number, epochs in enumerate((None, (0, 1), (1, 4), (4, 6))):
        model = load(checkpoint)
        log = post_train(model, training_set, codes, config, 0, tmp_path / str(number), epochs)
        logs.append(log.drop_duplicates("epoch").set_index("epoch")["learning_rate"])
    whole, phases = logs[0], pd.concat(logs[1:])
    assert len(whole) == 7 and set(whole.index) < set(phases.index)
    np.testing.assert_allclose(phases[whole.index], whole)
    assert whole.idxmax() == 2.0 and whole.iloc[-1] < 0.2 * whole.max()


def test_counts_of_a_control_must_be_equal(model, codes, training_set, tmp_path):
    log = post_train(model, training_set, codes, {**SFT, "per_device_train_batch_size": 3}, 0, tmp_path, (2, 4))
    counts = training_counts(log["step"].iloc[-1], training_set, (2, 4))
    expected = {"first_epoch": 2, "last_epoch": 4, "samples": 4, "steps": 2 * 2}
    assert counts.to_dict("records") == [expected]
    check_equal_compute(counts, pd.DataFrame([expected]))
    for column in expected:
        with pytest.raises(SystemExit, match="This control of equal compute takes"):
            check_equal_compute(counts, pd.DataFrame([expected | {column: 5}]))


@pytest.mark.parametrize("config", [SFT, DPO])
def test_training_changes_the_language_model_only_and_repeats_exactly(
    checkpoint, codes, training_set, tmp_path, config
):
    models = [load(checkpoint) for _ in range(3)]
    for model, folder in zip(models[:2], (tmp_path / "first", tmp_path / "second"), strict=True):
        post_train(model, training_set, codes, {**config, "epochs": 1, "per_device_train_batch_size": 2}, 0, folder)
    first, second, untouched = [dict(model.model.named_parameters()) for model in models]
    for name, parameter in first.items():
        assert torch.equal(parameter, second[name])
        assert torch.equal(parameter, untouched[name]) != name.startswith("model.language_model."), name


def test_a_loss_that_is_not_finite_is_one_sentence(model, codes, training_set, tmp_path):
    with pytest.raises(SystemExit, match="lower the learning rate"):
        post_train(model, training_set, codes, {**SFT, "learning_rate": 1e30, "max_grad_norm": 1e30}, 0, tmp_path)


@pytest.mark.parametrize("lora", [None, {"r": 4, "lora_alpha": 8}])
def test_gradient_checkpointing_computes_layers_again_and_changes_no_number(
    checkpoint, codes, training_set, tmp_path, lora
):
    logs, computed = [], []
    for on in (False, True):
        model, calls = load(checkpoint), []
        model.model.model.language_model.layers[0].self_attn.register_forward_hook(
            lambda *_, calls=calls: calls.append(1)
        )
        config = {**SFT, "lora": lora, "gradient_checkpointing": on}
        logs.append(post_train(model, training_set, codes, config, 0, tmp_path / str(on)))
        computed.append(len(calls))
    np.testing.assert_allclose(logs[0]["loss"], logs[1]["loss"], rtol=1e-5)
    assert computed == [TRAINING["epochs"], 2 * TRAINING["epochs"]]


@pytest.mark.parametrize("config", [SFT, DPO])
def test_lora_trains_the_linear_layers_of_the_language_model(checkpoint, codes, training_set, tmp_path, config):
    model, untouched = load(checkpoint), load(checkpoint)
    expected = -log_probs(model, codes[:4]).mean().item()
    log = post_train(
        model,
        training_set,
        codes,
        {**config, "lora": {"r": 4, "lora_alpha": 8, "init_lora_weights": True}},
        0,
        tmp_path,
    )
    first = expected if config is SFT else math.log(2) + 0.5 * expected
    assert log["loss"][0] == pytest.approx(first, rel=1e-5)  # an adapter starts as nothing
    assert log["loss"].iloc[-1] < log["loss"][0] - 0.05
    before = dict(untouched.model.named_parameters())
    changed = {name for name, value in model.model.named_parameters() if not torch.equal(value, before[name])}
    layers = [name for name in before if "language_model.layers" in name and "_proj" in name]
    assert changed == set(layers) and len(layers) == 4 * 7
    model.save(tmp_path / "model")  # the adapter is merged: an ordinary checkpoint
    torch.testing.assert_close(log_probs(load(tmp_path / "model"), codes[:4]), log_probs(model, codes[:4]))


@pytest.fixture
def inputs(codes, training_set, tmp_path):
    """The folder that a station reads codes.npy and training_set.csv from."""
    np.save(tmp_path / "codes.npy", codes)
    training_set.to_csv(tmp_path / "training_set.csv")
    return tmp_path


def start_station(launcher, config, checkpoint, inputs, output):
    """A process of the station; what it says goes to <output>.log."""
    arguments = ["--config", json.dumps(config), "--seed", "3", "--model", checkpoint, "--candidates", inputs]
    arguments += ["--training-set", inputs / "training_set.csv", "--output", output]
    command = [*launcher, "replication.post_training", *map(str, arguments)]
    with output.with_suffix(".log").open("w") as log:
        return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=log)


@pytest.mark.slow
@pytest.mark.parametrize("config", [SFT, DPO], ids=["sft", "dpo"])
def test_two_processes_train_as_one_with_twice_the_batch(checkpoint, inputs, tmp_path, config):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m"]
    for launcher, batch, output in (([sys.executable, "-m"], 4, "one"), (launch, 2, "two")):
        config = {**config, "per_device_train_batch_size": batch}
        assert start_station(launcher, config, checkpoint, inputs, tmp_path / output).wait() == 0
        said = (tmp_path / output).with_suffix(".log").read_text()
        assert (
            said.count("Saving the dataset (0/1 shards):   0%") <= 1
        )  # the first process writes rows, the others read
    one, two, start = (
        load_file(folder / "model.safetensors") for folder in (tmp_path / "one", tmp_path / "two", checkpoint)
    )
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, atol=2e-4, rtol=0)
    assert max((one[name] - start[name]).abs().max() for name in one) > 3e-3
    assert {path.name for path in tmp_path.glob("two*")} == {"two", "two.log"}


def test_a_checkpoint_that_was_cut_off_is_not_gone_on_from(tmp_path):
    assert last_checkpoint(tmp_path) is None
    (tmp_path / "checkpoint-4").mkdir()
    assert last_checkpoint(tmp_path) is None  # the trainer's state comes last
    written = {
        "checkpoint-8": '{"global_step": 8}',
        "checkpoint-12": '{"global_step": 12}',
        "checkpoint-16": '{"global_st',
    }
    for seconds, (name, text) in enumerate(written.items()):
        (tmp_path / name).mkdir()
        (tmp_path / name / "trainer_state.json").write_text(text)
        os.utime(tmp_path / name / "trainer_state.json", (seconds, seconds))
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-12")


@pytest.mark.slow
@pytest.mark.parametrize("config", [{**SFT, "condition_dropout": 0.2}, DPO], ids=["sft", "dpo"])
def test_a_killed_training_goes_on_and_ends_like_an_unbroken_one(checkpoint, inputs, tmp_path, config):
    config = {**config, "epochs": 20, "per_device_train_batch_size": 2, "lr_scheduler_type": "cosine", "model": MODEL}
    config["checkpoint_every_minutes"] = 0

    def start(output):
        return start_station([sys.executable, "-m"], config, checkpoint, inputs, output)

    unbroken = tmp_path / "unbroken"
    assert start(unbroken).wait() == 0
    killed = tmp_path / "killed"
    process = start(killed)
    while not any(map(last_checkpoint, tmp_path.glob("killed.progress/*"))):
        assert process.poll() is None, "the training ended before it could be killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not killed.exists()
    shutil.copytree(tmp_path / "killed.progress", tmp_path / "altered.progress")
    assert start(killed).wait() == 0
    for name in ("model.safetensors", "training_log.csv"):
        assert (killed / name).read_bytes() == (unbroken / name).read_bytes()
    assert not (tmp_path / "killed.progress").exists()

    # it did go on, and did not start again: from an altered checkpoint it ends elsewhere
    for path in tmp_path.glob("altered.progress/*/checkpoint-*/trained.safetensors"):
        save_file({name: 1.01 * value for name, value in load_file(path).items()}, path)
    assert start(tmp_path / "altered").wait() == 0
    assert (tmp_path / "altered/model.safetensors").read_bytes() != (unbroken / "model.safetensors").read_bytes()


def one_step(checkpoint, codes, training_set, folder, **changes):
    """Names of the parameters that one optimizer step changes, and the log."""
    model, untouched = load(checkpoint), load(checkpoint)
    log = post_train(model, training_set, codes, {**SFT, "epochs": 1, **changes}, 0, folder)
    before = dict(untouched.model.named_parameters())
    return {name for name, value in model.model.named_parameters() if not torch.equal(value, before[name])}, log


@pytest.mark.parametrize(
    ("arm", "trained"),
    [
        ("sft", ("language_model",)),
        ("s_modules_aligner", ("language_model", "generation_aligner")),
        (
            "s_modules_vision",
            ("language_model", "generation_aligner", "generation_embeddings", "generation_head"),
        ),
    ],
)
def test_the_modules_of_an_arm_are_trained_and_no_others(checkpoint, codes, training_set, tmp_path, arm, trained):
    modules = load_stage("post_training", "tiny", experiment=arm)["trained_modules"]
    changed, _ = one_step(checkpoint, codes, training_set, tmp_path, trained_modules=modules)
    expected = tuple(f"model.{module}." for module in trained)
    assert changed == {name for name, _ in load(checkpoint).model.named_parameters() if name.startswith(expected)}
    assert not any(name.startswith(("model.vision_model.", "model.aligner.", "model.vqmodel.")) for name in changed)


@pytest.mark.parametrize(("arm", "rate"), [("s_lr_sft_third", 1e-4), ("s_lr_sft_triple", 9e-4)])
def test_the_learning_rate_of_an_arm_reaches_the_optimizer(checkpoint, codes, training_set, tmp_path, arm, rate):
    learning_rate = load_stage("post_training", "tiny", experiment=arm)["learning_rate"]
    _, log = one_step(checkpoint, codes, training_set, tmp_path, learning_rate=learning_rate)
    assert log["learning_rate"][0] == pytest.approx(rate)


@pytest.mark.parametrize("arm", ["s_lr_dpo_third", "s_lr_dpo_triple", "s_beta_0_01", "s_beta_1", "s_lr_sft_third"])
def test_the_trainer_gets_the_numbers_of_the_configuration(arm, tmp_path):
    config = load_stage("post_training", "tiny", experiment=arm)
    arguments = trainer_arguments(config, 5, tmp_path)
    for key in ("learning_rate", "beta"):
        assert arguments.get(key) == config.get(key)
    assert arguments["num_train_epochs"] == config["epochs"] and arguments["seed"] == 5


def test_dropped_prompts_are_what_guidance_takes_for_none(model):
    """The ids that the sampler reads beside each prompt, whatever is inside the model."""
    read, sample = [], model.sampler.sample

    def recorded(input_ids, unconditional_ids, *rest):
        read.append(unconditional_ids)
        return sample(input_ids, unconditional_ids, *rest)

    model.sampler.sample = recorded
    prompt = PROMPTS[1]
    model.sample_images([prompt], [0], 2.0, 1.0)
    policy = model.image_policy("language_model")
    row = policy.prompt_ids([prompt])[0] + [3, 1, 0]  # image codes, of which 0 and 1 could be taken for text ids
    without = policy.without_prompts(torch.tensor([row]))[0]
    assert (without[:-3] - CODEBOOK_SIZE).tolist() == read[0][0].tolist()
    assert without[-3:].tolist() == [3, 1, 0]
    assert len(set(without[1:-4].tolist())) == 1 and (without[1:-4] != torch.tensor(row[1:-4])).all()


def test_condition_dropout_drops_its_share_of_prompts_and_the_same_ones_again(checkpoint, codes, tmp_path):
    training_set = pd.DataFrame({"prompt": PROMPTS * 25, "chosen": [0, 1, 2, 3] * 25})
    config = {**SFT, "epochs": 10, "per_device_train_batch_size": 20, "condition_dropout": 0.1}
    policy = load(checkpoint).image_policy("language_model")
    pad = CODEBOOK_SIZE + policy.tokenizer.pad_token_id
    seen = {}

    def dropped(name, seed, **changes):
        policy = load(checkpoint).image_policy("language_model")
        seen[name] = []
        policy.register_forward_pre_hook(
            lambda _, args, kwargs: seen[name].append((kwargs["input_ids"] == pad).any(dim=1)), with_kwargs=True
        )
        new_trainer(policy, training_set, codes, {**config, **changes}, seed, tmp_path / name).train()
        return torch.stack(seen[name])

    first, again, other = dropped("first", 0), dropped("again", 0), dropped("other", 1)
    assert first.shape == (50, 20)
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert binomtest(int(first.sum()), first.numel(), 0.1).pvalue > 0.01
    assert len(set(map(tuple, first.int().tolist()))) > 30  # drawn anew in every step
    assert not dropped("none", 0, condition_dropout=0.0).any()


def test_all_prompts_dropped_is_a_loss_without_prompts(model, codes, training_set, tmp_path):
    """The first loss is the mean NLL of the codes after begin-of-sequence, padding and begin-of-image alone."""
    tokenizer = model.processor.tokenizer
    ids = torch.tensor([[0] * len(model.generation_ids([prompt])[0]) for prompt in PROMPTS[:1]])
    ids[:], ids[0, 0], ids[0, -1] = tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.boi_token_id
    one = training_set.iloc[[0]]
    with torch.no_grad():
        embeddings = torch.cat(
            [
                model.model.get_input_embeddings()(ids),
                model.model.prepare_embeddings_for_image_generation(torch.from_numpy(codes[:1, :-1]).long()),
            ],
            dim=1,
        )
        hidden = model.model.model.language_model(inputs_embeds=embeddings).last_hidden_state[:, -36:]
        logits = model.model.model.generation_head(hidden)
    expected = torch.nn.functional.cross_entropy(logits[0], torch.from_numpy(codes[0]).long()).item()
    given = -log_probs(model, codes[:4])[0].mean().item()
    log = post_train(model, one, codes, {**SFT, "epochs": 1, "condition_dropout": 1.0}, 0, tmp_path)
    assert log["loss"][0] == pytest.approx(expected, rel=1e-4) and abs(given - expected) > 0.01
