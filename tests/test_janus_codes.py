"""The Janus that sees codes: its understanding reads the codes of an image and nothing else, as transformers would."""

import numpy as np
import pytest
import torch
from settings import MODEL

from replication.models.interface import load_model
from replication.models.tiny_janus_codes import new_model, new_processor, new_unified
from replication.pretraining.joint import train_jointly

CONFIG = {**MODEL, "class": "replication.models.janus_codes.JanusCodesModel"}
PROMPTS = ["a red circle left of a blue square", "an image of a triangle"]
IMAGES = np.random.default_rng(0).integers(256, size=(2, 24, 24, 3), dtype=np.uint8)
JOINT = {
    "batch_size": 4,
    "understanding_batch_size": 2,
    "learning_rate": 1e-2,
    "weight_decay": 0.05,
    "warmup_steps": 1,
    "image_loss_weight": 1.0,
    "text_to_image_examples": 50,
    "caption_noise": 0.5,
    "condition_dropout": 0.5,
    "near_misses_from_step": 4,
}


@pytest.fixture(scope="module")
def codes_checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("codes")
    new_model(seed=0).save_pretrained(path)
    new_processor().save_pretrained(path)
    return path


@pytest.fixture
def model(codes_checkpoint):
    torch.set_num_threads(1)
    return load_model(codes_checkpoint, CONFIG)


def embedded(model, text, image):
    """What the language model reads of a text with one image, put together by hand: (1, L, hidden)."""
    vocabulary, top = model.processor.tokenizer.get_vocab(), model.model.model
    codes = iter(model.encode_pixels(model.pixel_values(image[None]))[0])
    rows = [
        top.generation_aligner(top.generation_embeddings.weight[next(codes)])
        if word == "<image>"
        else top.language_model.embed_tokens.weight[vocabulary[word]]
        for word in text.split()
    ]
    return torch.stack(rows)[None]


def question(prompt):
    return "<bos> <boi> " + "<image> " * 36 + f"<eoi> does this image describe {prompt} ?"


def test_a_verdict_reads_the_codes_through_their_own_embeddings(model):
    with torch.no_grad():
        logits = model.alignment_logits(IMAGES, PROMPTS)
        for logit, prompt, image in zip(logits, PROMPTS, IMAGES, strict=True):
            hidden = model.language_model(inputs_embeds=embedded(model, question(prompt), image)).last_hidden_state
            answers = model.model.lm_head(hidden[0, -1])
            torch.testing.assert_close(logit, answers[model.accept_id] - answers[model.reject_id], rtol=1e-4, atol=1e-5)


def test_the_vision_encoder_is_read_by_nothing_and_the_code_embeddings_by_both_branches(model):
    codes = torch.arange(36)[None]

    def both():
        return model.alignment_logits(IMAGES[:1], PROMPTS[:1]), model.image_log_probs(PROMPTS[:1], codes)

    with torch.no_grad():
        before = both()
        for weight in (*model.model.model.vision_model.parameters(), *model.model.model.aligner.parameters()):
            weight.normal_()
        assert all(torch.equal(one, other) for one, other in zip(before, both(), strict=True))
        model.model.model.generation_embeddings.weight.mul_(1.5)
        assert not any(torch.equal(one, other) for one, other in zip(before, both(), strict=True))


def test_written_answers_begin_with_the_likeliest_word(model):
    answers = model.written_answers(IMAGES, PROMPTS, 1)
    for answer, prompt, image in zip(answers, PROMPTS, IMAGES, strict=True):
        with torch.no_grad():
            hidden = model.language_model(inputs_embeds=embedded(model, question(prompt), image)).last_hidden_state
            likeliest = model.model.lm_head(hidden[0, -1]).argmax()
        assert answer == model.processor.tokenizer.decode(likeliest, skip_special_tokens=True)


def test_it_draws_as_the_janus_of_the_same_weights_and_comes_back_from_disk(model, codes_checkpoint, tmp_path):
    janus = load_model(codes_checkpoint, MODEL)
    drawn = [one.sample_images(PROMPTS, [1, 2], 1.0, 1.0)[0] for one in (model, janus)]
    assert torch.equal(*drawn)
    model.save(tmp_path)
    again = load_model(tmp_path, CONFIG)
    with torch.no_grad():
        assert torch.equal(again.alignment_logits(IMAGES, PROMPTS), model.alignment_logits(IMAGES, PROMPTS))
        assert not torch.equal(janus.alignment_logits(IMAGES, PROMPTS), model.alignment_logits(IMAGES, PROMPTS))


def test_pre_training_trains_what_is_read_and_its_state_is_read_again(tmp_path):
    wording = {key: MODEL[key] for key in ("question", "accept", "reject")}
    whole, stopped = (new_unified(3, wording) for _ in range(2))
    start = {name: value.clone() for name, value in whole.model.named_parameters()}
    train_jointly(whole, 3, steps=4, progress_folder=tmp_path / "whole", compiled=False, **JOINT)
    train_jointly(stopped, 3, steps=4, progress_folder=tmp_path, checkpoint_every=4, compiled=False, **JOINT)
    again = new_unified(5, wording)
    train_jointly(again, 3, steps=4, progress_folder=tmp_path, compiled=False, **JOINT)  # nothing is left to do
    for one, other, third in zip(*(model.model.parameters() for model in (whole, stopped, again)), strict=True):
        assert torch.equal(one, other) and torch.equal(one, third)
    moved = {name for name, value in whole.model.named_parameters() if not torch.equal(value, start[name])}
    frozen = ("model.vision_model.", "model.aligner.", "model.vqmodel.")
    assert moved == {name for name in start if not name.startswith(frozen)}
