"""What is measured: every case does the same work by this package and by what a user would pick instead.

A case yields `Row`s. Both sides are timed in turn, so that a slow minute of the machine strikes both.
"""

import copy
import statistics
import tempfile
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
import trl.trainer.utils
from trl import DPOConfig, DPOTrainer

from benchmarks.roofline import least_sampling_seconds
from benchmarks.shapes import janus_pro
from benchmarks.timing import synchronised
from replication import post_training
from replication.candidates import draw_images
from replication.config import load_stage
from replication.models.janus import JanusModel
from replication.prompts import prompt_table
from replication.trainers import PreTokenized
from replication.verdicts import own_verdicts

BASE = Path(__file__).parents[1] / "base_models/embedded_janus/base=0"
GUIDANCE_SCALE = 2.0
LIKELIER = {
    "verdict": "likelier",
    "threshold": 0.0,
}  # one forward pass per pair, sorted by length and batched by itself
SCORE_TOKENS = 8  # about "The score is 1." and the end of the answer (paper 1.2)
ANSWER_TOKENS = (
    40  # assumption: two sentences and the score; Janus-Pro's printed answers describe the image first (paper 1.3)
)
WRITTEN = {"verdict": "written", "answer_tokens": ANSWER_TOKENS}  # and the logits, by which DPO ranks


class Row(NamedTuple):
    """Medians over `repeats` of both sides in `unit`, and how many times better ours is."""

    name: str
    ours: float
    alternative: float
    ratio: float
    unit: str
    repeats: int


def compare(name, ours, alternative, amount, unit, repeats):
    """Row of `amount` per second of two functions that do the same work."""
    seconds = [(synchronised(ours)[0], synchronised(alternative)[0]) for _ in range(repeats)]
    mine, theirs = (amount / statistics.median(side) for side in zip(*seconds, strict=True))
    return Row(name, mine, theirs, mine / theirs, unit, repeats)


def best_batch(work, sizes):
    """The batch size of `sizes` at which `work(size)` is fastest at its best of three, after a first call that may compile."""

    def seconds(size):
        work(size)
        return min(synchronised(partial(work, size))[0] for _ in range(3))

    return min(sizes, key=seconds)


def embedded_model(device, compiled=False):
    config = load_stage("candidates", "tiny")["model"]
    return JanusModel.load(BASE, {**config, "device": device, "compile": compiled})


def embedded_prompts(number):
    return prompt_table(-(-number // 9), held_out=False, seed=0)["prompt"].sample(number, random_state=0).tolist()


def batches(size, *columns):
    return ([column[start : start + size] for column in columns] for start in range(0, len(columns[0]), size))


def sample_and_decode(model, prompts, size):
    """This package: one image per prompt, decoded."""
    for part, seeds in batches(size, prompts, list(range(len(prompts)))):
        model.decode_images(model.sample_images(part, seeds, GUIDANCE_SCALE, 1.0)[0])


@torch.no_grad()
def generate(model, prompts):
    """transformers: codes of one image per prompt."""
    inputs = model.processor(text=prompts, generation_mode="image", padding=True, return_tensors="pt")
    return model.model.generate(
        **inputs.to(model.model.device), generation_mode="image", do_sample=True, guidance_scale=GUIDANCE_SCALE
    )


@torch.no_grad()
def generate_and_decode(model, prompts, size):
    """transformers: one image per prompt, decoded."""
    for (part,) in batches(size, prompts):
        model.model.decode_image_tokens(generate(model, part))


def share_of_roofline(name, model, prompts, device, repeats):
    """Row of the share that both sides reach of the rate that this machine allows at most; codes only, not decoded."""
    length = max(map(len, model.generation_ids(prompts)))
    least, limit = least_sampling_seconds(model, len(prompts), length, device)
    ours = partial(model.sample_images, prompts, list(range(len(prompts))), GUIDANCE_SCALE, 1.0)
    theirs = partial(generate, model, prompts)
    name = f"{name} (batch {len(prompts)}, limited by {limit})"
    return compare(name, ours, theirs, least, "of the roofline", repeats)


def candidates(device, repeats):
    """10 candidates for each of 64 prompts, with guidance, decoded: each side at its best batch size, ours compiled (once
    thousands of images are drawn) and as it comes; then in a small batch, as memory dictates with large models."""
    prompts = [prompt for prompt in embedded_prompts(64) for _ in range(10)]
    sizes = (64, 128, 320, 640)
    plain, compiled = embedded_model(device), embedded_model(device, compiled=True)
    theirs = partial(generate_and_decode, plain, prompts)
    theirs = partial(theirs, best_batch(theirs, sizes))
    for name, model in (("candidates", compiled), ("candidates (not compiled)", plain)):
        ours = partial(sample_and_decode, model, prompts)
        yield compare(name, partial(ours, best_batch(ours, sizes)), theirs, len(prompts), "images/s", repeats)
    yield share_of_roofline("candidates", compiled, prompts[:320], device, repeats)
    theirs = partial(generate_and_decode, plain, prompts[:80], 10)
    for name, model in (("candidates (batch 10)", compiled), ("candidates (not compiled, batch 10)", plain)):
        ours = partial(sample_and_decode, model, prompts[:80], 10)
        ours()
        yield compare(name, ours, theirs, 80, "images/s", repeats)


@torch.no_grad()
def write_answers(model, images, prompts, tokens, size):
    """transformers: an answer of `tokens` tokens is written, one by one."""
    for part, texts in batches(size, images, prompts):
        questions = [f"<image> {model.question.format(prompt=text)}" for text in texts]
        inputs = model.processor(text=questions, images=list(part), padding=True, return_tensors="pt")
        model.model.generate(
            **inputs.to(model.model.device),
            generation_mode="text",
            do_sample=False,
            max_new_tokens=tokens,
            min_new_tokens=tokens,
        )


def verdicts(device, repeats):
    """Verdicts on 640 images against written answers: such as the paper's model prints, ours compiled and as they come, and the
    bare score, each in its best batch; and the bare score one image at a time, as in Janus' own example."""
    model, compiled = embedded_model(device), embedded_model(device, compiled=True)
    prompts = [prompt for prompt in embedded_prompts(64) for _ in range(10)]
    images = model.decode_images(model.sample_images(prompts, list(range(640)), 1.0, 1.0)[0])
    ours = partial(own_verdicts, model, images, prompts, LIKELIER)
    compiled_ours = partial(own_verdicts, compiled, images, prompts, LIKELIER)
    compiled_ours()
    for name, asked, tokens in (
        ("verdicts", compiled_ours, ANSWER_TOKENS),
        ("verdicts (not compiled)", ours, ANSWER_TOKENS),
        ("verdicts (bare score)", compiled_ours, SCORE_TOKENS),
    ):
        written = partial(write_answers, model, images, prompts, tokens)
        written = partial(written, best_batch(written, (32, 128, 640)))
        yield compare(name, asked, written, 640, "pairs/s", repeats)
    few_ours = partial(own_verdicts, model, images[:64], prompts[:64], LIKELIER)
    one_by_one = partial(write_answers, model, images[:64], prompts[:64], SCORE_TOKENS, 1)
    yield compare("verdicts (bare score, one by one)", few_ours, one_by_one, 64, "pairs/s", repeats)


class StockTrainer(PreTokenized, DPOTrainer):
    """TRL as it comes, but for rows that are tokenised already."""


def stock_dpo(model, training_set, codes, config):
    """TRL without stored references: a second copy of the policy is asked at every step. Returns the logged losses."""
    policy = model.image_policy("language_model")
    reference = copy.deepcopy(model).image_policy("language_model").requires_grad_(False)
    with tempfile.TemporaryDirectory() as folder:
        arguments = DPOConfig(**post_training.trainer_arguments(config, 0, folder))
        rows = post_training.dpo_rows(policy, training_set, codes)
        tokenizer = policy.tokenizer
        trainer = StockTrainer(
            model=policy, ref_model=reference, args=arguments, train_dataset=rows, processing_class=tokenizer
        )
        trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def dpo_epoch(device, repeats):
    """A DPO run of 30 epochs (paper section 3) on 256 pairs, and the losses that both log."""
    prompts = embedded_prompts(256)
    codes = (
        embedded_model(device).sample_images(prompts * 2, list(range(512)), 1.0, 1.0)[0].cpu().numpy().astype(np.int16)
    )
    training_set = pd.DataFrame({"prompt": prompts, "chosen": range(256), "rejected": range(256, 512)})
    config = {**load_stage("post_training", "tiny", experiment="dpo"), "epochs": 30}
    config["model"] = {**config["model"], "device": device}
    tile = trl.trainer.utils._CHUNKED_LOGPROB_CHUNK_SIZE  # as TRL comes
    losses = {}

    def ours():
        with tempfile.TemporaryDirectory() as folder:
            log = post_training.post_train(embedded_model(device), training_set, codes, config, 0, Path(folder))
        losses["ours"] = log["loss"]

    def stock():
        trl.trainer.utils._CHUNKED_LOGPROB_CHUNK_SIZE = tile
        losses["stock"] = stock_dpo(embedded_model(device), training_set, codes, config)

    yield compare("dpo_epoch", ours, stock, 30, "epochs/s", repeats)
    difference = np.abs(np.array(losses["ours"]) - np.array(losses["stock"])).max()
    print(f"largest difference of the logged losses: {difference:.1e}")
    if difference > 1e-5:
        raise SystemExit("The losses of both sides differ by more than 1e-5, so their times cannot be compared.")


def scaling(device, repeats):
    """Seconds for n images with their verdicts, against n times the seconds per image of the smallest run: a ratio of 1 is
    exactly linear. More prompts of 10 candidates, then more candidates for 32 prompts."""
    model = embedded_model(device)
    config = {**load_stage("candidates", "tiny"), "batch_size": 160}
    table = prompt_table(16, held_out=False, seed=0).sample(frac=1, random_state=0, ignore_index=True)
    draw_images(model, table[:16], 10, "candidate", "scaling", 0, config)
    for what, runs in (
        ("prompts", [(prompts, 10) for prompts in (16, 32, 64, 128)]),
        ("candidates", [(32, candidates) for candidates in (5, 10, 20, 40)]),
    ):
        per_image = None
        for prompts, number in runs:
            work = partial(draw_images, model, table[:prompts], number, "candidate", "scaling", 0, config)
            seconds = statistics.median(synchronised(work)[0] for _ in range(repeats))
            images = prompts * number
            per_image = per_image or seconds / images
            linear = per_image * images
            name = f"scaling (more {what}: {prompts} x {number})"
            yield Row(name, seconds, linear, linear / seconds, "s", repeats)


def janus_pro_shape(size, device, repeats, generated, judged):
    """Sample, verdict, and one SFT and one DPO step at Janus-Pro's sizes with random weights."""
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    model = janus_pro(size, device, dtype)
    name = f"janus_pro_{size}_shape"
    prompts = embedded_prompts(max((2, *generated)))
    sample = partial(model.sample_images, prompts[:2], [0, 1], GUIDANCE_SCALE, 1.0)
    seconds, (codes, log_probs) = synchronised(sample)
    yield Row(f"{name} (2 images sampled)", seconds, float("nan"), float("nan"), "s", 1)
    for number in generated:
        chosen = prompts[:number]
        ours = partial(sample_and_decode, model, chosen, number)
        theirs = partial(generate_and_decode, model, chosen, number)
        ours(), theirs()  # the first calls compile and choose kernels
        yield compare(f"{name} (images, batch {number})", ours, theirs, number, "images/s", repeats)
        yield share_of_roofline(name, model, chosen, device, repeats)
    with torch.no_grad():
        forced = model.image_log_probs(prompts[:2], codes).sum(dim=1)
    difference = ((log_probs - forced).abs() / codes.shape[1]).max().item()
    print(f"sampler against teacher forcing: {difference:.1e} per code")
    if difference > (1e-4 if dtype == torch.float32 else 5e-2):
        raise SystemExit("The sampler and teacher forcing disagree, so its speed means nothing.")
    images = model.decode_images(codes).repeat(judged // 2, axis=0)
    texts = (prompts[:2] * judged)[:judged]
    ours, theirs = (
        partial(own_verdicts, model, images, texts, LIKELIER),
        partial(write_answers, model, images, texts, ANSWER_TOKENS, judged),
    )
    yield compare(f"{name} (verdicts)", ours, theirs, judged, "pairs/s", repeats)
    ours = partial(own_verdicts, model, images, texts, WRITTEN)
    yield compare(f"{name} (written verdicts)", ours, theirs, judged, "pairs/s", repeats)
    training_set = pd.DataFrame({"prompt": prompts[:1], "chosen": [0], "rejected": [1]})
    for method in ("sft", "dpo"):
        for lora in ({"r": 64, "lora_alpha": 128}, None):
            if lora is None and device == "cpu":
                continue  # weights, gradients and two moments in float32 do not fit 24 GiB
            config = {**load_stage("post_training", "tiny", experiment=method), "epochs": 1, "lora": lora}
            config |= {"per_device_train_batch_size": 1, "gradient_checkpointing": True}
            config["model"] = {**config["model"], "device": device, "dtype": str(dtype).removeprefix("torch.")}
            with tempfile.TemporaryDirectory() as folder:
                step = partial(
                    post_training.post_train, model, training_set, codes.cpu().numpy(), config, 0, Path(folder)
                )
                seconds, log = synchronised(step)
            label = f"{name} (one {method} step, {'LoRA' if lora else 'all weights'})"
            print(f"{label}: loss {log['loss'][0]:.4f}")
            yield Row(label, seconds, float("nan"), float("nan"), "s", 1)


def janus_pro_1b_shape(device, repeats):
    # on a CPU, two images take ten minutes
    generated, judged = ((1, 16, 64, 256), 64) if device == "cuda" else ((), 2)
    yield from janus_pro_shape("1b", device, repeats if device == "cuda" else 1, generated, judged)


def janus_pro_7b_shape(device, repeats):
    if device == "cpu":
        raise SystemExit("janus_pro_7b_shape needs a GPU: its weights alone take 15 GB in bfloat16; use --device cuda.")
    # at 256 images the guided cache alone takes 139 GB
    yield from janus_pro_shape("7b", device, repeats, (1, 16, 64, 128), 64)


CASES = {
    case.__name__: case for case in (candidates, verdicts, dpo_epoch, janus_pro_1b_shape, janus_pro_7b_shape, scaling)
}
