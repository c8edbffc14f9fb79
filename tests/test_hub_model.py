"""The interface of a unified model on a checkpoint in the hub's layout of Janus-Pro, with the paper's wordings."""

import json
import shutil

import numpy as np
import pytest
import torch
from hub_checkpoints import CODEBOOK_SIZE, HUB_MODEL, NUM_IMAGE_TOKENS, PROMPTS
from torch.nn.functional import log_softmax
from transformers.models.janus.processing_janus import DEFAULT_SYSTEM_PROMPT

from replication.models.checkpoint_checks import check_memory, weight_bytes, weight_files
from replication.models.janus import JanusModel
from replication.verdicts import own_verdicts, parse_score


@pytest.fixture
def hub_model(hub_checkpoint):
    torch.set_num_threads(1)
    return JanusModel.load(hub_checkpoint, HUB_MODEL)


@pytest.fixture
def taught(taught_checkpoint):
    return JanusModel.load(taught_checkpoint, HUB_MODEL)


def random_images(number):
    return np.random.default_rng(0).integers(256, size=(number, 24, 24, 3), dtype=np.uint8)


def paper_question(prompt):
    """The question as the paper prints it after the processor's default system prompt (paper 1.2)."""
    return (
        f"Does this original image describe {prompt}? If it describes the scene, score 1; if it does not fully describe, "
        "score 0. Please answer in the following format: The score is {your score}."
    )


def asked_by_processor(model, images, questions, answer=""):
    """Inputs of questions about images by the processor's own chat template and default system prompt."""
    texts = [
        model.processor.apply_chat_template(
            [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}],
            add_generation_prompt=True,
        )
        + answer
        for question in questions
    ]
    return model.processor(text=texts, images=list(images), padding=True, return_tensors="pt")


def test_requests_for_images_are_those_of_the_chat_template(hub_model):
    texts = [
        hub_model.processor.apply_chat_template(
            [{"role": "user", "content": [{"type": "text", "text": prompt}]}], add_generation_prompt=True
        )
        for prompt in PROMPTS
    ]
    expected = hub_model.processor(text=texts, generation_mode="image", padding=True, return_tensors="pt")
    input_ids, attention_mask = hub_model.generation_inputs(PROMPTS)
    assert torch.equal(input_ids, expected["input_ids"]) and torch.equal(attention_mask, expected["attention_mask"])
    read = hub_model.processor.tokenizer.batch_decode(hub_model.generation_ids(PROMPTS))
    for prompt, text in zip(PROMPTS, read, strict=True):
        assert text.endswith(f"<|User|>: {prompt}\n\n<|Assistant|>:<begin_of_image>") and "You are" not in text


def test_questions_are_those_of_the_chat_template_with_the_system_prompt_once(hub_model):
    expected = asked_by_processor(hub_model, random_images(3), map(paper_question, PROMPTS))
    input_ids, attention_mask = hub_model._questions(random_images(3), PROMPTS)
    assert torch.equal(input_ids, expected["input_ids"]) and torch.equal(attention_mask, expected["attention_mask"])
    assert (attention_mask[:, -1] == 1).all() and (attention_mask[:, 0] == 0).any()  # padded on the left
    for text in hub_model.processor.tokenizer.batch_decode(input_ids):
        assert text.count(DEFAULT_SYSTEM_PROMPT) == 1 and text.count("<image_placeholder>") == NUM_IMAGE_TOKENS


def test_braces_in_a_prompt_stay(hub_model):
    (text,) = hub_model.processor.tokenizer.batch_decode(
        hub_model._questions(random_images(1), ["a {set} of {image}"])[0]
    )
    assert "describe a {set} of {image}? If" in text


@pytest.mark.parametrize("guidance_scale", [1.0, 5.0])
def test_sampler_and_teacher_forcing_agree(hub_model, guidance_scale):
    codes, log_probs = hub_model.sample_images(PROMPTS * 2, list(range(6)), guidance_scale, 1.0)
    with torch.no_grad():
        expected = hub_model.image_log_probs(PROMPTS * 2, codes)
    assert codes.shape == (6, NUM_IMAGE_TOKENS) and expected.std() > 0.5
    torch.testing.assert_close(log_probs, expected.sum(dim=1), atol=1e-3, rtol=1e-5)


def test_low_temperature_equals_greedy_generate(hub_model):
    input_ids, attention_mask = hub_model.generation_inputs(PROMPTS)
    greedy = hub_model.model.generate(
        input_ids=input_ids, attention_mask=attention_mask, generation_mode="image", do_sample=False
    )  # with the guidance of the generation config: 5
    assert (hub_model.sample_images(PROMPTS, [0, 1, 2], 5.0, 1e-6)[0] == greedy).all()


def test_alignment_logits_compare_what_would_follow_the_score_is(hub_model):
    images, ids = random_images(3), hub_model.processor.tokenizer.convert_tokens_to_ids
    logits = hub_model.alignment_logits(images, PROMPTS)
    for i, prompt in enumerate(PROMPTS):
        inputs = asked_by_processor(hub_model, images[i : i + 1], [paper_question(prompt)], " The score is ")
        log_probs = log_softmax(hub_model.model(**inputs).logits[0, -1], dim=-1)
        torch.testing.assert_close(logits[i], log_probs[ids("1")] - log_probs[ids("0")], atol=1e-4, rtol=1e-4)


def test_prompt_log_probs_are_of_the_assistants_words(hub_model):
    images, prompt = random_images(1), PROMPTS[2]
    inputs = asked_by_processor(hub_model, images, ["Describe this image."], f" {prompt}<｜end▁of▁sentence｜>")
    length = len(hub_model.processor.tokenizer.encode(f" {prompt}", add_special_tokens=False)) + 1
    log_probs = log_softmax(hub_model.model(**inputs).logits[0, :-1], dim=-1)
    expected = log_probs.gather(1, inputs["input_ids"][0, 1:, None])[-length:].sum()
    torch.testing.assert_close(hub_model.prompt_log_probs(images, [prompt])[0], expected, atol=1e-3, rtol=1e-5)


def test_written_answers_are_greedy_and_without_guidance(taught):
    """The generation config's guidance of 5 is for images only."""
    images = random_images(2)
    answers = taught.written_answers(images, PROMPTS[:2], 6)
    for image, prompt, answer in zip(images, PROMPTS, answers, strict=False):
        inputs = asked_by_processor(taught, [image], [paper_question(prompt)])
        ids = start = inputs["input_ids"]
        while ids.shape[1] < start.shape[1] + 6 and ids[0, -1] != taught.processor.tokenizer.eos_token_id:
            with torch.no_grad():
                logits = taught.model(input_ids=ids, pixel_values=inputs["pixel_values"]).logits
            ids = torch.cat([ids, logits[:, -1:].argmax(dim=-1)], dim=1)
        assert answer == taught.processor.tokenizer.decode(ids[0, start.shape[1] :], skip_special_tokens=True)


def test_written_verdicts_are_read_and_their_margins_agree(taught):
    prompts = PROMPTS * 6
    codes, _ = taught.sample_images(prompts, list(range(100, 118)), 5.0, 1.0)
    images = taught.decode_images(codes)
    verdicts = own_verdicts(taught, images, prompts, {"verdict": "written", "answer_tokens": 16})
    assert verdicts["parsed"].all() and 0 < verdicts["verdict"].sum() < len(verdicts)
    assert (verdicts["answer"].map(parse_score) == verdicts["verdict"]).all()
    assert ((verdicts["alignment_logit"] > 0) == verdicts["verdict"]).all()


def test_the_policy_begins_with_the_request_and_learns_every_code(hub_model):
    codes, _ = hub_model.sample_images(PROMPTS[:1], [0], 5.0, 1.0)
    policy = hub_model.image_policy("language_model")
    (prompt,) = policy.prompt_ids(PROMPTS[:1])
    assert [i - CODEBOOK_SIZE for i in prompt] == hub_model.generation_ids(PROMPTS[:1])[0]
    logits = policy(torch.tensor([[*prompt, *codes[0]]])).logits[0, len(prompt) - 1 : -1]
    expected = hub_model.image_log_probs(PROMPTS[:1], codes)[0]
    found = log_softmax(logits, dim=-1).gather(1, codes[0, :, None])[:, 0]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("damage", ["truncated", "missing"])
def test_a_damaged_shard_is_one_sentence(hub_checkpoint, tmp_path, damage):
    path = shutil.copytree(hub_checkpoint, tmp_path / "copy")
    shard = weight_files(path)[1]
    content = shard.read_bytes()
    shard.unlink()
    if damage == "truncated":
        shard.write_bytes(content[: len(content) // 2])
    with pytest.raises(SystemExit, match="is not a readable Janus checkpoint, build or download it again") as stop:
        JanusModel.load(path, HUB_MODEL)
    assert "\n" not in str(stop.value)


def test_a_tokenizer_read_without_its_blanks_is_one_sentence(hub_checkpoint, tmp_path):
    """What some releases of transformers 5 make of a byte-level tokenizer that calls itself LlamaTokenizerFast."""
    path = shutil.copytree(hub_checkpoint, tmp_path / "copy")
    tokenizer = json.loads((path / "tokenizer.json").read_text())
    tokenizer["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
    (path / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(SystemExit, match="This transformers reads the tokenizer of .* wrongly: '1 0' becomes"):
        JanusModel.load(path, HUB_MODEL)


def test_the_hubs_older_layout_is_read_alike(hub_checkpoint, hub_model, tmp_path):
    """Its image processor stands in preprocessor_config.json, where this transformers writes it into processor_config.json."""
    older = shutil.copytree(hub_checkpoint, tmp_path / "older")
    processor = json.loads((older / "processor_config.json").read_text())
    images = random_images(2)[:, :20, :16]  # which are resized and padded
    newer = hub_model.pixel_values(images)
    (older / "preprocessor_config.json").write_text(json.dumps(processor.pop("image_processor")))
    (older / "processor_config.json").write_text(json.dumps(processor))
    assert torch.equal(JanusModel.load(older, HUB_MODEL).pixel_values(images), newer)
    settings = json.loads((older / "preprocessor_config.json").read_text()) | {"image_mean": [0.2] * 3}
    (older / "preprocessor_config.json").write_text(json.dumps(settings))
    other = JanusModel.load(older, HUB_MODEL).pixel_values(images)
    assert not torch.equal(other, newer)  # it is this file that is read


def test_the_memory_of_the_weights_is_known_before_they_are_read(hub_checkpoint, hub_model):
    parameters = sum(parameter.numel() for parameter in hub_model.model.parameters())
    buffers = sum(buffer.numel() for buffer in hub_model.model.buffers())
    assert 4 * parameters <= weight_bytes(hub_checkpoint, "float32") <= 4 * (parameters + buffers)
    assert weight_bytes(hub_checkpoint, "bfloat16") * 2 == weight_bytes(hub_checkpoint, "float32")


def test_a_gpu_that_is_too_small_is_one_sentence():
    """7.4e9 weights in bfloat16 fit a card of 24 GB, and do not fit one of 16 GB."""
    check_memory("model", 2 * 7_400_000_000, 24 * 10**9)
    with pytest.raises(SystemExit, match=r"^model needs about 16 GiB of GPU memory .* 15 GiB are free; take a larger"):
        check_memory("model", 2 * 7_400_000_000, 16 * 10**9)
