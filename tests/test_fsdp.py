"""Training with weights in parts on two processes, as profiles/fsdp.yaml says, against one process with all of them."""

import json
import os
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import psutil
import pytest
import torch
from safetensors.torch import load_file
from settings import DPO, MODEL, ROOT, SFT

from replication.models.janus import JanusModel
from replication.models.tiny import CODEBOOK_SIZE
from replication.post_training import last_checkpoint, main, post_train

PROMPTS = ["an image of a triangle", "a picture of a striped purple triangle"] * 2
TRAINING_SET = pd.DataFrame({"prompt": PROMPTS, "chosen": [0, 1, 2, 3], "rejected": [4, 5, 6, 7]})
CODES = np.random.default_rng(0).integers(CODEBOOK_SIZE, size=(8, 36)).astype(np.int16)
LAUNCH = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", ROOT / "profiles/fsdp.yaml"]
LAUNCH += ["--num_processes", "2", ROOT / "tests/fsdp_on_cpu.py"]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def station(checkpoint, tmp_path_factory):
    """A function that starts the station on two processes, which take half of the batch each; it returns the process and the
    folder of the model. What they say is in <folder>.log."""
    place = tmp_path_factory.mktemp("fsdp")
    np.save(place / "codes.npy", CODES)
    TRAINING_SET.to_csv(place / "training_set.csv")

    def start(name, config):
        config = {**config, "per_device_train_batch_size": config["per_device_train_batch_size"] // 2}
        words = ["--config", json.dumps(config), "--seed", "0", "--model", checkpoint, "--candidates", place]
        words += ["--training-set", place / "training_set.csv", "--output", place / name]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        with (place / f"{name}.log").open("a") as log:
            process = subprocess.Popen([*LAUNCH, *words], env=environment, stdout=log, stderr=log)
        return process, place / name

    return start


def finished(started):
    process, folder = started
    assert process.wait() == 0, folder.with_suffix(".log").read_text()[-3000:]
    return folder


def logged(folder):
    return pd.read_csv(folder / "training_log.csv")


def alone(checkpoint, config, folder):
    """The model after the same training in this process, and its log."""
    torch.set_num_threads(1)
    model = JanusModel.load(checkpoint, config["model"])
    log = post_train(model, TRAINING_SET, CODES, config, 0, folder / "progress")
    model.save(folder / "alone")
    return load_file(folder / "alone/model.safetensors"), log


CHECKPOINTED = {"sft": {**SFT, "gradient_checkpointing": True, "checkpoint_every_minutes": 0}, "dpo": DPO}


@pytest.fixture(scope="module")
def sft(station):
    """SFT on two processes, undisturbed."""
    return finished(station("sft", CHECKPOINTED["sft"]))


@pytest.mark.parametrize("method", CHECKPOINTED)
def test_two_processes_with_parts_train_as_one_with_the_whole(checkpoint, station, method, tmp_path, request):
    config = CHECKPOINTED[method]
    folder = request.getfixturevalue("sft") if method == "sft" else finished(station(method, config))
    expected, log = alone(checkpoint, config, tmp_path)
    start, trained = load_file(checkpoint / "model.safetensors"), load_file(folder / "model.safetensors")
    assert trained.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(trained[name], value, atol=2e-4, rtol=0)
        assert trained[name].dtype == torch.float32
    assert max((expected[name] - start[name]).abs().max() for name in expected) > 3e-3
    for column in log.columns:
        np.testing.assert_allclose(logged(folder)[column], log[column], rtol=1e-4, atol=1e-4)
    model = JanusModel.load(folder, MODEL)  # the same class, with all that it draws, reads and answers by
    assert len(model.decode_images(model.sample_images(PROMPTS, range(4), 2.0, 1.0)[0])) == 4
    head, table = model.model.lm_head.weight, model.model.get_input_embeddings().weight
    assert torch.equal(head, table) and not torch.equal(table, start["model.language_model.embed_tokens.weight"])


def test_log_probabilities_are_not_rounded_where_steps_are_in_half_precision(checkpoint, station, tmp_path):
    """accelerate's own settings hand them over in bfloat16: sums over 36 codes would be whole numbers here, and of 576 codes
    multiples of 16. Weights are kept in float32 until the end, or most steps would be rounded away."""
    config = {**DPO, "model": {**MODEL, "dtype": "bfloat16"}, "gradient_checkpointing": True}
    folder = finished(station("half", config))
    _, log = alone(checkpoint, DPO, tmp_path)
    sums = logged(folder)[["logps/chosen", "logps/rejected"]].to_numpy()
    assert (np.abs(4 * sums - np.round(4 * sums)) > 1e-3).any()  # means over four images
    np.testing.assert_allclose(sums[0], log[["logps/chosen", "logps/rejected"]].iloc[0], rtol=1e-3)
    np.testing.assert_allclose(logged(folder)["loss"], log["loss"], rtol=0.02)
    assert logged(folder)["rewards/margins"][0] == 0  # the reference was computed alike
    assert {value.dtype for value in load_file(folder / "model.safetensors").values()} == {torch.bfloat16}


def test_a_killed_training_goes_on_and_ends_like_an_unbroken_one(station, sft):
    process, folder = station("killed", CHECKPOINTED["sft"])
    while not any(map(last_checkpoint, folder.parent.glob("killed.progress/*"))):
        assert process.poll() is None, "the training ended before it could be killed"
        time.sleep(0.01)
    for one in [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]:
        one.kill()
    process.wait()
    assert not folder.exists()
    folder.with_suffix(".log").unlink()
    assert finished(station("killed", CHECKPOINTED["sft"])) == folder
    assert "'epoch': '1'" not in folder.with_suffix(".log").read_text()  # it did go on, and did not start again
    for name in ("model.safetensors", "training_log.csv"):
        assert (folder / name).read_bytes() == (sft / name).read_bytes()
    assert {path.name for path in folder.parent.glob("killed*")} == {"killed", "killed.log"}


def test_what_cannot_be_in_parts_is_one_sentence(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(SystemExit, match="accelerate lays weights in parts on GPUs only"):
        alone(checkpoint, SFT, tmp_path)
    words = {"seed": 0, "model": checkpoint, "candidates": tmp_path, "training-set": tmp_path / "set.csv"}
    config = json.dumps({**SFT, "lora": {"r": 4}})
    arguments = [f"--{name}={value}" for name, value in {**words, "output": tmp_path / "m", "config": config}.items()]
    TRAINING_SET.to_csv(words["training-set"])
    monkeypatch.setattr(sys, "argv", ["post_training", *arguments])
    with pytest.raises(SystemExit, match="FSDP is for training all weights; set post_training.lora=null"):
        main()
