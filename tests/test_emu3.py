"""The shared-token family on a checkpoint in the hub's layout of Emu3: its image format is the processor's own."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from hub_checkpoints import CODEBOOK_SIZE, EMU3_MODEL, PROMPTS, new_emu3_checkpoint
from settings import DPO, SFT
from torch.nn.functional import log_softmax

from replication.models.emu3 import Emu3Model
from replication.post_training import post_train


@pytest.fixture(scope="session")
def emu3_checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("emu3")
    new_emu3_checkpoint(path)
    return path


@pytest.fixture
def model(emu3_checkpoint):
    torch.set_num_threads(1)
    return Emu3Model.load(emu3_checkpoint, EMU3_MODEL)


def random_images(number, height, width):
    return np.random.default_rng(0).integers(256, size=(number, height, width, 3), dtype=np.uint8)


def asked(prompt, opening):
    return (
        f"{opening}USER: <image>Does this original image describe {prompt}? If it describes the scene, score 1; if it does not "
        "fully describe, score 0. Please answer in the following format: The score is {your score}. ASSISTANT:"
    )


def question_inputs(model, images):
    opening = EMU3_MODEL["turn"].partition("USER:")[0]
    texts = [asked(prompt, opening) for prompt in PROMPTS[: len(images)]]
    return model.processor(text=texts, images=list(images), padding=True, padding_side="left", return_tensors="pt")


def test_requests_for_images_name_their_rows_and_columns(model):
    inputs = model.processor(
        text=PROMPTS,
        return_for_image_generation=True,
        image_area=EMU3_MODEL["image_area"],
        padding=True,
        padding_side="left",
        return_tensors="pt",
    )
    input_ids, attention_mask = model.generation_inputs(PROMPTS)
    assert torch.equal(input_ids, inputs["input_ids"]) and torch.equal(attention_mask, inputs["attention_mask"])
    text = model.processor.tokenizer.decode(model.generation_ids(PROMPTS[:1])[0])
    assert text == f"<|extra_203|>{PROMPTS[0]}<|image start|>5*5<|image token|>"


@pytest.mark.parametrize("size", [(40, 40), (32, 56), (16, 16), (100, 90)])
def test_questions_and_pixels_are_the_processors_own(model, size):
    """Images that keep their size, wide ones, small ones and large ones."""
    images = random_images(3, *size)
    inputs = question_inputs(model, images)
    input_ids, attention_mask = model._questions(images, PROMPTS)
    assert torch.equal(input_ids, inputs["input_ids"]) and torch.equal(attention_mask, inputs["attention_mask"])
    torch.testing.assert_close(model.pixel_values(images), inputs["pixel_values"], atol=1e-5, rtol=0)


def test_a_question_reads_the_tokens_that_transformers_puts_in(model):
    images, encode = random_images(3, 32, 56), model.processor.tokenizer.encode
    *lead, accept = encode(" The score is 1")
    reject = encode(" The score is 0")[-1]
    inputs = question_inputs(model, images)
    inputs["input_ids"] = torch.cat([inputs["input_ids"], torch.tensor([lead] * 3)], dim=1)
    inputs["attention_mask"] = torch.cat([inputs["attention_mask"], torch.ones(3, len(lead), dtype=torch.long)], dim=1)
    with torch.no_grad():
        plain = model.model(**inputs).logits[:, -1]
        logits = model.alignment_logits(images, PROMPTS)
    torch.testing.assert_close(logits, plain[:, accept] - plain[:, reject], atol=1e-3, rtol=1e-3)


@torch.no_grad()
def test_pictures_are_tokenized_and_drawn_as_transformers_does_it(model):
    images = random_images(3, 40, 40)
    pixels, vqmodel = model.pixel_values(images), model.model.model.vqmodel
    tokens = vqmodel.encode(pixels, torch.tensor([[40, 40]] * 3)).image_tokens
    codes = model.encode_pixels(pixels)
    assert torch.equal(codes, torch.stack(tokens).flatten(1)) and len(codes.unique()) > 3
    vectors = model.codebook[codes].view(3, 5, 5, -1).permute(0, 3, 1, 2)
    torch.testing.assert_close(model.paint_latents(vectors), vqmodel.decode(codes.view(3, 5, 5)))
    assert model.decode_images(codes).shape == (3, 40, 40, 3)


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_sampler_teacher_forcing_and_policy_agree(model, guidance_scale):
    codes, log_probs = model.sample_images(PROMPTS * 2, list(range(6)), guidance_scale, 1.0)
    with torch.no_grad():
        expected = model.image_log_probs(PROMPTS * 2, codes)
    assert codes.shape == (6, 25) and codes.max() < CODEBOOK_SIZE and expected.std() > 0.3
    torch.testing.assert_close(log_probs, expected.sum(dim=1), atol=1e-3, rtol=1e-5)
    policy = model.image_policy("language_model")
    (prompt,) = policy.prompt_ids(PROMPTS[:1])
    logits = policy(torch.tensor([[*prompt, *codes[0]]])).logits[0, len(prompt) - 1 : -1]
    found = log_softmax(logits, dim=-1).gather(1, codes[0, :, None])[:, 0]
    torch.testing.assert_close(found, expected[0], atol=1e-4, rtol=1e-4)


def test_answers_are_written(model):
    answers = model.written_answers(random_images(2, 40, 40), PROMPTS[:2], 4)
    assert len(answers) == 2 and all(isinstance(answer, str) for answer in answers)


def test_image_codes_in_another_order_are_refused(model):
    ids = model.model.config.vocabulary_map
    one, other = "<|visual token 000003|>", "<|visual token 000004|>"
    ids[one], ids[other] = ids[other], ids[one]
    del model.model.model.vocabulary_mapping.__dict__["img2bpe"]
    wording = {key: EMU3_MODEL[key] for key in ("question", "accept", "reject", "image_area")}
    with pytest.raises(ValueError, match="does not number its image codes one after the other"):
        Emu3Model(model.model, model.processor, **wording)


@pytest.mark.parametrize("config", [SFT, DPO], ids=["sft", "dpo"])
def test_adapters_train_the_linear_layers_of_the_language_model(model, tmp_path, config):
    """DPO begins at ln 2: the policy is its reference, whatever dropout the released configuration asks for."""
    codes = np.random.default_rng(0).integers(CODEBOOK_SIZE, size=(6, 25)).astype(np.int16)
    training_set = pd.DataFrame({"prompt": PROMPTS, "chosen": [0, 1, 2], "rejected": [3, 4, 5]})
    before = {name: value.clone() for name, value in model.model.state_dict().items()}
    with torch.no_grad():
        nll = -model.image_log_probs(PROMPTS, torch.from_numpy(codes[:3]).long()).mean().item()
    log = post_train(model, training_set, codes, {**config, "lora": {"r": 4, "lora_alpha": 8}}, 0, tmp_path)
    changed = {name for name, value in model.model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and all("text_model.layers" in name and name.endswith("_proj.weight") for name in changed)
    if config is DPO:
        assert log["loss"][0] == pytest.approx(math.log(2) + 0.5 * nll, rel=1e-5)
    else:
        assert log["loss"].iloc[-1] < log["loss"][0]
