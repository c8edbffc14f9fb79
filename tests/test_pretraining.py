"""Pre-training of the embedded model: packed questions, noisy captions, resuming."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from replication.base_model import sha256, verify
from replication.models.tiny import CODEBOOK_SIZE, NUM_IMAGE_TOKENS, new_model, new_processor
from replication.pretraining.data import IGNORED, QuestionWriter, text_to_image_pairs
from replication.pretraining.joint import generation_loss, train_jointly, understanding_loss
from replication.pretraining.tokenizer import random_pictures, to_pixel_values, train_tokenizer
from replication.scenes.grammar import canonical, holds, parse
from replication.scenes.oracle import read_scenes
from replication.scenes.world import is_held_out

QUESTION, CAPTION = "does this image describe {prompt} ?", "describe this image :"


@pytest.fixture(scope="module")
def model():
    return new_model(seed=3).eval()


@pytest.fixture(scope="module")
def processor():
    return new_processor()


@pytest.fixture(scope="module")
def writer(processor):
    return QuestionWriter(processor.tokenizer, NUM_IMAGE_TOKENS, QUESTION, CAPTION)


def test_packed_questions_do_not_see_one_another(model, writer):
    """The loss of the packed batch equals that of one plain forward pass per caption or question."""
    batch = writer.batch(2, 0.5, np.random.default_rng(0))
    caption_loss, answer_loss = understanding_loss(model, batch, writer.yes, writer.no)
    caption_losses, answer_losses = [], []
    prefix = len(writer.prefix)
    for row in range(2):
        starts = [i for i in range(prefix, batch.input_ids.shape[1]) if batch.position_ids[row, i] == prefix]
        for start, stop in zip(starts, [*starts[1:], batch.input_ids.shape[1]], strict=True):
            ids, labels = batch.input_ids[row, start:stop], batch.labels[row, start:stop]
            ids, labels = ids[ids != writer.pad], labels[ids != writer.pad]
            logits = model(
                input_ids=torch.cat([torch.tensor(writer.prefix), ids])[None],
                pixel_values=batch.pixel_values[row : row + 1],
                attention_mask=torch.ones(1, prefix + len(ids), dtype=torch.long),
            ).logits[0, prefix:]
            for position, label in enumerate(labels.tolist()):
                if label != IGNORED:
                    loss = -torch.log_softmax(logits[position], dim=-1)[label].item()
                    (answer_losses if label in (writer.yes, writer.no) else caption_losses).append(loss)
    assert caption_loss.item() == pytest.approx(np.mean(caption_losses), abs=1e-4)
    assert answer_loss.item() == pytest.approx(np.mean(answer_losses), abs=1e-4)


def test_answers_are_true_and_balanced(writer):
    """Each labelled answer agrees with the scene that the oracle reads from the picture."""
    answers = []
    for seed in range(4):
        batch = writer.batch(16, 0.9, np.random.default_rng(seed))
        pictures = ((batch.pixel_values.permute(0, 2, 3, 1) + 1) * 127.5).round().to(torch.uint8).numpy()
        for row, scene in enumerate(read_scenes(pictures)):
            text = writer.tokenizer.decode(batch.input_ids[row][batch.input_ids[row] != writer.pad])
            asked = [part.split(" ?")[0] for part in text.split("does this image describe ")[1:]]
            labels = [label for label in batch.labels[row].tolist() if label in (writer.yes, writer.no)]
            for prompt, label in zip(asked, labels, strict=True):
                assert (label == writer.yes) == holds(parse(prompt), scene)
                assert not is_held_out(parse(prompt))
            answers += labels
    assert 0.4 < np.mean(np.array(answers) == writer.yes) < 0.62


def test_begin_of_image_predicts_the_first_code_and_every_code_gets_a_gradient(model, processor):
    codes = torch.randint(0, CODEBOOK_SIZE, (2, NUM_IMAGE_TOKENS), generator=torch.Generator().manual_seed(0))
    inputs = processor(
        text=["a circle", "a red circle above a blue square"],
        generation_mode="image",
        padding=True,
        return_tensors="pt",
    )
    losses = []
    for row in range(2):
        ids = inputs["input_ids"][row][inputs["attention_mask"][row].bool()]
        hidden = [model.get_input_embeddings()(ids)]
        for code in codes[row]:
            state = model.model.language_model(inputs_embeds=torch.cat(hidden)[None]).last_hidden_state[0, -1]
            losses.append(-torch.log_softmax(model.model.generation_head(state), dim=-1)[code])
            hidden.append(model.prepare_embeddings_for_image_generation(code[None]))
    loss = generation_loss(model, inputs["input_ids"], inputs["attention_mask"], codes)
    assert loss.item() == pytest.approx(torch.stack(losses).mean().item(), abs=1e-5)
    gradient = torch.autograd.grad(loss, model.model.generation_head.vision_head.bias)[0]
    assert set(gradient.argsort()[: codes.unique().numel()].tolist()) == set(codes.unique().tolist())


def test_a_tokenizer_trained_briefly_beats_an_untrained_one_and_keeps_its_codebook_on_the_sphere():
    pixels = to_pixel_values(random_pictures(64, np.random.default_rng(0)))

    @torch.no_grad()
    def error(vqmodel):
        return (vqmodel(pixels).decoded_pixel_values - pixels).abs().mean()

    vqmodel = new_model(0).model.vqmodel
    before = error(vqmodel)
    train_tokenizer(vqmodel, seed=0, steps=30, batch_size=16, learning_rate=4e-3)
    assert error(vqmodel) < 0.6 * before
    norms = vqmodel.quantize.embedding.weight.norm(dim=1)
    torch.testing.assert_close(norms, torch.ones_like(norms))


def test_caption_noise_has_the_stated_strength_and_no_held_out_meaning_is_seen():
    vqmodel = new_model(0).model.vqmodel
    clean, clean_codes = text_to_image_pairs(vqmodel, 400, caption_noise=0.0, seed=1)
    noisy, _ = text_to_image_pairs(vqmodel, 400, caption_noise=1.0, seed=1)
    assert not any(is_held_out(parse(caption)) for caption in clean + noisy)
    assert len(clean_codes) == 400
    again, codes_again = text_to_image_pairs(vqmodel, 400, caption_noise=0.0, seed=1)
    assert again == clean and torch.equal(codes_again, clean_codes)
    assert sum(canonical(parse(a)) == canonical(parse(b)) for a, b in zip(clean, noisy, strict=True)) < 40


def test_an_interrupted_pre_training_ends_like_an_unbroken_one(tmp_path, processor):
    from replication.pretraining import joint

    settings = {
        "batch_size": 2,
        "understanding_batch_size": 2,
        "learning_rate": 1e-3,
        "weight_decay": 0.05,
        "warmup_steps": 2,
        "image_loss_weight": 5.0,
        "text_to_image_examples": 20,
        "caption_noise": 0.5,
        "condition_dropout": 0.1,
        "near_misses_from_step": 4,
        "question": QUESTION,
        "caption": CAPTION,
        "steps": 6,
        "checkpoint_every": 2,
        "compiled": False,
    }
    unbroken, broken = new_model(1), new_model(1)
    train_jointly(unbroken, processor, 1, progress_folder=tmp_path / "unbroken", **settings)

    original = joint._checkpoint
    try:
        joint._checkpoint = lambda *arguments: _stop_after(original, arguments)
        with pytest.raises(KeyboardInterrupt):
            train_jointly(broken, processor, 1, progress_folder=tmp_path / "broken", **settings)
    finally:
        joint._checkpoint = original
    resumed = new_model(1)
    train_jointly(resumed, processor, 1, progress_folder=tmp_path / "broken", **settings)
    for (name, one), (_, other) in zip(unbroken.state_dict().items(), resumed.state_dict().items(), strict=True):
        assert torch.equal(one, other), name


def _stop_after(checkpoint, arguments):
    checkpoint(*arguments)
    if arguments[1].state_dict()["state"][0]["step"] == 4:
        raise KeyboardInterrupt


def test_one_flipped_byte_in_a_shipped_model_is_named(tmp_path: Path):
    folder = tmp_path / "base=0"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"a": 1}))
    sums = tmp_path / "SHA256SUMS"
    sums.write_text(f"{sha256(folder / 'config.json')}  base=0/config.json\n")
    verify(folder, sums)
    flipped = bytearray((folder / "config.json").read_bytes())
    flipped[2] ^= 1
    (folder / "config.json").write_bytes(flipped)
    with pytest.raises(SystemExit, match="config.json is missing or damaged"):
        verify(folder, sums)
    with pytest.raises(SystemExit, match="no shipped base model"):
        verify(tmp_path / "base=9", sums)
