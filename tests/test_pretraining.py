"""Pre-training of the embedded models: packed questions, noisy captions, resuming."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from families import AUTOREGRESSIVE, UNTRAINED, code_logits, drawing_inputs, text_inputs, text_logits
from settings import FAMILIES
from torch.nn.functional import cross_entropy

from replication.base_model import sha256, verify
from replication.models.tiny import CODEBOOK_SIZE, NUM_IMAGE_TOKENS
from replication.pretraining.data import IGNORED, QuestionWriter, text_to_image_pairs
from replication.pretraining.joint import generation_loss, train_jointly, understanding_loss
from replication.pretraining.tokenizer import random_pictures, to_pixel_values, train_tokenizer
from replication.scenes.grammar import canonical, holds, parse
from replication.scenes.oracle import read_scenes
from replication.scenes.world import is_held_out

WORDING = ("question", "accept", "reject", "image_area", "decoding_steps", "choice_noise", "likelihood_steps")


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return request.param


def new_unified(family, seed):
    wording = {key: value for key, value in FAMILIES[family].items() if key in WORDING}
    unified = UNTRAINED[family].new_unified(seed, wording)
    unified.model.eval()
    return unified


@pytest.fixture(scope="module")
def unified(family):
    return new_unified(family, 3)


@pytest.fixture(scope="module")
def writer(unified):
    return QuestionWriter(unified)


def test_packed_questions_do_not_see_one_another(unified, family, writer):
    """The loss of the packed batch equals that of one plain forward pass per caption or question."""
    batch = writer.batch(2, 0.5, np.random.default_rng(0))
    caption_loss, answer_loss = understanding_loss(unified, batch, writer.yes, writer.no)
    caption_losses, answer_losses = [], []
    prefix = len(writer.prefix)
    pictures = ((batch.pixel_values.permute(0, 2, 3, 1) + 1) * 127.5).round().to(torch.uint8).numpy()
    for row in range(2):
        starts = [i for i in range(prefix, batch.input_ids.shape[1]) if batch.position_ids[row, i] == prefix]
        for start, stop in zip(starts, [*starts[1:], batch.input_ids.shape[1]], strict=True):
            ids, labels = batch.input_ids[row, start:stop], batch.labels[row, start:stop]
            ids, labels = ids[ids != writer.pad], labels[ids != writer.pad]
            text = " ".join(["<image>", *writer.tokenizer.convert_ids_to_tokens(ids.tolist())])
            logits = text_logits(family, unified, text_inputs(family, unified, text, pictures[row]))[prefix:]
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


def test_the_question_of_training_is_that_of_use(unified, family, writer):
    """The prefix of every row, and a question after it, are what the processor of transformers writes."""
    text = "<image> does this image describe a circle ?"
    inputs = text_inputs(family, unified, text, np.zeros((24, 24, 3), np.uint8))
    written = inputs["ids"] if family == "showo" else inputs["input_ids"][0].tolist()
    assert written == writer.prefix + writer._ids(text.partition(" ")[2])


@pytest.mark.parametrize("family", AUTOREGRESSIVE, indirect=True)
def test_the_last_of_the_prompt_predicts_the_first_code_and_every_code_gets_a_gradient(unified, family):
    codes = torch.randint(0, CODEBOOK_SIZE, (2, NUM_IMAGE_TOKENS), generator=torch.Generator().manual_seed(0))
    prompts, losses = ["a circle", "a red circle above a blue square"], []
    for prompt, image in zip(prompts, codes, strict=True):
        logits = code_logits(family, unified, drawing_inputs(family, unified, [prompt])[0], image[None])
        losses.append(cross_entropy(logits[0], image))
    loss = generation_loss(unified, *drawing_inputs(family, unified, prompts), codes, codes)
    assert loss.item() == pytest.approx(torch.stack(losses).mean().item(), abs=1e-5)

    logits = unified.drawn_logits(*unified.generation_inputs(prompts), codes).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(cross_entropy(logits.flatten(0, 1), codes.flatten()), logits)
    assert (gradient.gather(2, codes[..., None]) < 0).all()


def test_a_tokenizer_trained_briefly_beats_an_untrained_one_and_keeps_its_codebook_on_the_sphere(family):
    pictures = random_pictures(64, np.random.default_rng(0))

    @torch.no_grad()
    def error(unified):
        images = unified.decode_images(unified.encode_pixels(to_pixel_values(pictures)))
        return np.abs(images.astype(float) - pictures).mean()

    unified = new_unified(family, 0)
    before = error(unified)
    train_tokenizer(unified, seed=0, steps=30, batch_size=16, learning_rate=4e-3)
    assert error(unified) < 0.7 * before
    norms = unified.codebook.norm(dim=1)
    radius = 3.0 if family == "showo" else 1.0  # corners of a cube of 9 dimensions, untouched
    torch.testing.assert_close(norms, torch.full_like(norms, radius))


@pytest.mark.parametrize("family", AUTOREGRESSIVE, indirect=True)
@torch.no_grad()
def test_a_picture_is_tokenized_as_transformers_does_it(unified, family):
    """And the vectors of its codes are drawn as the codes are."""
    pixels = to_pixel_values(random_pictures(5, np.random.default_rng(1)))
    vqmodel = unified.model.model.vqmodel
    sizes = {"image_sizes": torch.tensor([[24, 24]] * 5)} if family == "emu3" else {}
    expected = vqmodel.encode(pixels, **sizes).image_tokens
    codes = unified.encode_pixels(pixels)
    assert torch.equal(codes, torch.stack(list(expected)).view(5, 36) if family == "emu3" else expected.view(5, 36))
    unified.codebook.div_(unified.codebook.norm(dim=1, keepdim=True))
    vectors = unified.codebook[codes].view(5, 6, 6, -1).permute(0, 3, 1, 2)
    torch.testing.assert_close(unified.paint_latents(vectors).permute(0, 2, 3, 1), unified.paint(codes))


def test_caption_noise_has_the_stated_strength_and_no_held_out_meaning_is_seen(unified):
    clean, clean_codes = text_to_image_pairs(unified, 400, caption_noise=0.0, seed=1)
    noisy, _ = text_to_image_pairs(unified, 400, caption_noise=1.0, seed=1)
    assert not any(is_held_out(parse(caption)) for caption in clean + noisy)
    assert len(clean_codes) == 400
    again, codes_again = text_to_image_pairs(unified, 400, caption_noise=0.0, seed=1)
    assert again == clean and torch.equal(codes_again, clean_codes)
    assert sum(canonical(parse(a)) == canonical(parse(b)) for a, b in zip(clean, noisy, strict=True)) < 40


def test_an_interrupted_pre_training_ends_like_an_unbroken_one(tmp_path, family):
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
        "steps": 6,
        "checkpoint_every": 2,
        "compiled": False,
    }
    unbroken, broken, resumed = (new_unified(family, 1) for _ in range(3))
    train_jointly(unbroken, 1, progress_folder=tmp_path / "unbroken", **settings)

    original = joint._checkpoint
    try:
        joint._checkpoint = lambda *arguments: _stop_after(original, arguments)
        with pytest.raises(KeyboardInterrupt):
            train_jointly(broken, 1, progress_folder=tmp_path / "broken", **settings)
    finally:
        joint._checkpoint = original
    train_jointly(resumed, 1, progress_folder=tmp_path / "broken", **settings)
    for (name, one), (_, other) in zip(
        unbroken.model.state_dict().items(), resumed.model.state_dict().items(), strict=True
    ):
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
