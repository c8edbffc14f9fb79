"""The masked-diffusion family: how it reads, draws and is trained, and a checkpoint in the released layout."""

import json
import math
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from families import hidden_code_logits, likelihood_order
from hub_checkpoints import SHOWO_MODEL, new_showo_checkpoint
from safetensors.torch import load_file
from settings import DPO, FAMILIES, SFT
from test_references import dpo_loss_and_reference, new_trainer, sft_loss_and_reference, trl_loss
from torch.nn.functional import cross_entropy, log_softmax
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from transformers import PreTrainedTokenizerFast

from replication import masked_sampling, post_training
from replication.dynamics.gradients import (
    Pairs,
    directional_derivatives,
    per_example_gradients,
    trained_parameters,
    values,
)
from replication.masked_sampling import hidden_counts, random_orders
from replication.models import tiny_showo
from replication.models.interface import load_model
from replication.models.magvit import LookupFreeQuantizer
from replication.models.showo import ShowoBackbone, ShowoModel
from replication.models.showo_checkpoint import Showo
from replication.pretraining.joint import generation_loss

PROMPTS = ["a picture of a striped purple triangle", "an image of a triangle", "a red circle left of a blue square"]


@pytest.fixture(scope="module", params=["showo"])
def family(request):
    return request.param


def random_codes(number, seed=0):
    return torch.randint(512, (number, 36), generator=torch.Generator().manual_seed(seed))


def test_the_cosine_schedule_by_hand():
    assert hidden_counts(36, 3) == [36, 31, 18, 0]  # 36 cos 30 = 31.2, 36 cos 60 = 18
    assert hidden_counts(4, 4) == [4, 3, 2, 1, 0]  # 3.7, 2.8 and 1.5, but one code at least in every step
    assert hidden_counts(5, 1) == [5, 0]
    for steps in (0, 6):
        with pytest.raises(ValueError, match="drawn in 1 to 5 steps"):
            hidden_counts(5, steps)


def test_random_orders_keep_to_the_schedule_and_every_place_comes_at_any_time():
    orders = random_orders(torch.arange(2000), 36, 4)
    sizes = -np.diff(hidden_counts(36, 4))
    assert all(np.bincount(order).tolist() == sizes.tolist() for order in orders.numpy())
    shares = (orders == 3).float().mean(dim=0)  # 13 of 36 codes come last
    assert (shares - sizes[3] / 36).abs().max() < 5 * math.sqrt(0.25 / 2000)


def test_codes_are_signs():
    quantizer = LookupFreeQuantizer(3)
    assert quantizer.embedding[5].tolist() == [1, -1, 1]  # 5 = 101
    latents = torch.tensor([0.1, -2.0, 3.0]).view(1, 3, 1, 1)
    assert quantizer(latents).item() == 5
    codes = torch.arange(8)
    assert torch.equal(quantizer(quantizer.embedding.T[None, :, :, None])[0, :, 0], codes)


def seen_by(model, input_ids, attention_mask=None):
    """(L, L): which tokens each place of one row sees, measured: whose embeddings change its state."""
    embeddings = model.language_model.embed_tokens(input_ids).detach().clone()
    mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
    handle = model.language_model.embed_tokens.register_forward_hook(lambda *_: embeddings.requires_grad_())
    states = model.read(input_ids, mask)
    handle.remove()
    rows = [torch.autograd.grad(state.sum() + state[0], embeddings, retain_graph=True)[0][0] for state in states[0]]
    return torch.stack([row.abs().sum(dim=1) > 0 for row in rows])


def test_who_sees_whom():
    """Directly or through others: images see all of themselves and what is before, text what is before, nobody padding."""
    model = tiny_showo.new_unified(
        0, {key: FAMILIES["showo"][key] for key in ("question", "accept", "reject", *ShowoModel.settings)}
    )
    ids, mask = model.generation_inputs(PROMPTS[:2])
    row = model.image_ids(ids[1:], random_codes(1))
    mask = torch.nn.functional.pad(mask[1:], (0, 37), value=1)
    pads = int((mask == 0).sum())
    first = row.shape[1] - 38  # <|soi|>
    seen = seen_by(model, row, mask)
    assert pads == 2 and not seen[pads:, :pads].any()
    text = seen[pads:first, pads:]
    assert torch.equal(text, torch.ones_like(text).tril())
    assert seen[first:, pads:].all()

    question, mask = model._questions(np.zeros((1, 24, 24, 3), np.uint8), PROMPTS[:1])
    seen = seen_by(model, question, mask)
    assert seen[:39, :39].all() and not seen[:39, 39:].any()  # <|mmu|><|soi|> image <|eoi|>
    assert torch.equal(seen[39:], torch.ones_like(seen).tril()[39:])


def test_no_prompt_is_a_request_without_words(model):
    ids, mask = model.generation_inputs(PROMPTS)
    codes = random_codes(3).masked_fill(torch.rand(3, 36, generator=torch.Generator().manual_seed(1)) < 0.5, 512)
    with torch.no_grad():
        unconditional = model.drawn_logits(model.unconditional_ids(ids), mask, codes)
        empty = model.drawn_logits(*model.generation_inputs([""] * 3), codes)
        plain = hidden_code_logits(model, "", codes[2].tolist())
    torch.testing.assert_close(unconditional, empty, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(unconditional[2], plain, atol=1e-4, rtol=1e-4)


def test_what_is_read_once_gives_the_same_states(model):
    ids, mask = model.generation_inputs(PROMPTS)
    codes = random_codes(4).masked_fill(torch.arange(36) % 3 == 0, 512)
    rows = torch.tensor([2, 0, 0, 1])
    with torch.no_grad():
        reader = masked_sampling.CachedReader(model, ids, mask, rows)
        for read in (codes, codes.flip(1)):  # the second, too: nothing of the first is left
            torch.testing.assert_close(
                reader(read), model.drawn_states(ids[rows], mask[rows], read), atol=1e-4, rtol=1e-4
            )


def test_prompts_are_read_once_and_the_unconditional_half_only_where_it_is_used(model):
    read = []
    embed_tokens = model.language_model.embed_tokens
    handle = embed_tokens.register_forward_hook(lambda m, inputs, output: read.append(tuple(inputs[0].shape)))
    model.sample_images(PROMPTS * 2, list(range(6)), 1.0, 1.0)
    model.sample_images(PROMPTS * 2, list(range(6)), 2.0, 1.0)
    handle.remove()
    lengths = {rows: width for rows, width in read if width != 38}
    assert [rows for rows, _ in read] == [3] + 12 * [6] + [4] + 12 * [12]
    assert set(lengths) == {3, 4}


def test_the_images_of_a_schedule_of_one_code_a_step_are_drawn_from_any_order_conditionals(checkpoint):
    """In as many steps as codes, the log-probability of the sampler is a chain of single conditionals."""
    model = load_model(checkpoint, {**FAMILIES["showo"], "decoding_steps": 36})
    samples = model.samples(PROMPTS[:1], [5], 1.0, 1.0)
    codes, order = samples.codes[0].tolist(), samples.order[0].tolist()
    assert sorted(order) == list(range(36))
    total = 0.0
    for place in range(36):
        seen = [code if order[i] < order[place] else 512 for i, code in enumerate(codes)]
        with torch.no_grad():
            total += log_softmax(hidden_code_logits(model, PROMPTS[0], seen)[place], dim=-1)[codes[place]].item()
    assert samples.log_probs.item() == pytest.approx(total, abs=1e-3)


def test_the_likelihood_is_the_same_order_for_every_image_of_a_request_and_differs_between_requests(model):
    ids, mask = model.generation_inputs([*PROMPTS, PROMPTS[0]])
    orders = model.orders(ids, mask)
    assert torch.equal(orders[0], orders[3]) and not torch.equal(orders[0], orders[1])
    assert orders[0].tolist() == likelihood_order(model, PROMPTS[0])
    assert torch.equal(model.orders(*model.generation_inputs(PROMPTS[1:2])), orders[1:2])  # whatever the padding


def test_training_hides_by_the_cosine_schedule_and_learns_what_is_hidden(model):
    codes = random_codes(4000)
    read, learnt = model.training_codes(codes, np.random.default_rng(0))
    hidden = read == 512
    assert torch.equal(hidden, learnt >= 0) and torch.equal(learnt[hidden], codes[hidden])
    assert torch.equal(read[~hidden], codes[~hidden])
    shares = hidden.float().mean(dim=1)
    assert hidden.sum(dim=1).min() >= 1
    # the mean of cos(pi u / 2) is 2 / pi, and a third of all times hide less than half
    assert shares.mean().item() == pytest.approx(2 / math.pi, abs=0.02)
    assert (shares < 0.5).float().mean().item() == pytest.approx(1 / 3, abs=0.03)


@pytest.fixture
def a_step(model):
    codes = random_codes(2, seed=3)
    read, learnt = model.training_codes(codes, np.random.default_rng(1))
    losses = []
    for prompt, row, labels in zip(PROMPTS[:2], read.tolist(), learnt.tolist(), strict=True):
        with torch.no_grad():
            logits = hidden_code_logits(model, prompt, row)
        losses += [-log_softmax(logits[i], dim=-1)[label].item() for i, label in enumerate(labels) if label >= 0]
    return read, learnt, codes, float(np.mean(losses))


def test_the_loss_of_pre_training_is_that_of_hidden_codes_in_their_own_places(model, a_step):
    read, learnt, _, expected = a_step
    loss = generation_loss(model, *model.generation_inputs(PROMPTS[:2]), read, learnt)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def causal_among_image_tokens(monkeypatch):
    monkeypatch.setattr(ShowoModel, "seen_at_once", lambda model, ids: torch.zeros_like(ids, dtype=torch.bool))


def text_sees_what_follows(monkeypatch):
    monkeypatch.setattr(ShowoModel, "seen_at_once", lambda model, ids: torch.ones_like(ids, dtype=torch.bool))


def padding_is_seen(monkeypatch):
    monkeypatch.setattr(ShowoModel, "is_seen", lambda model, ids, mask: torch.ones_like(ids, dtype=torch.bool))


def the_next_place_predicts(monkeypatch):
    """As if codes were predicted from left to right."""
    drawn_states = ShowoModel.drawn_states
    monkeypatch.setattr(ShowoModel, "drawn_states", lambda model, *inputs: drawn_states(model, *inputs).roll(1, dims=1))


READING = [causal_among_image_tokens, text_sees_what_follows, padding_is_seen, the_next_place_predicts]


@pytest.mark.parametrize("mutate", READING)
def test_mutants_of_reading_are_caught(mutate, model, a_step, monkeypatch):
    read, learnt, _, expected = a_step
    mutate(monkeypatch)
    loss = generation_loss(model, *model.generation_inputs(PROMPTS[:2]), read, learnt)
    assert math.isfinite(loss) and loss.item() != pytest.approx(expected, rel=1e-4)  # ten times the tolerance above


def test_a_loss_on_codes_that_are_seen_is_another(model, a_step):
    read, _, codes, expected = a_step
    logits = model.drawn_logits(*model.generation_inputs(PROMPTS[:2]), read)
    assert cross_entropy(logits.flatten(0, 1), codes.flatten()).item() != pytest.approx(expected, rel=1e-3)


def features_in_their_own_places(monkeypatch):
    """The forgotten shift: TRL takes the logits of one place for the label of the next."""
    forward = ShowoBackbone.forward

    def unshifted(backbone, *inputs, **options):
        output = forward(backbone, *inputs, **options)
        output.last_hidden_state = output.last_hidden_state.roll(1, dims=1)
        return output

    monkeypatch.setattr(ShowoBackbone, "forward", unshifted)


def everything_hidden(monkeypatch):
    """All codes predicted at once, from the request alone."""
    monkeypatch.setattr(ShowoModel, "orders", lambda model, ids, mask: torch.zeros(len(ids), 36, dtype=torch.long))


def codes_see_themselves(monkeypatch):
    """Codes predicted while they are seen."""
    image_ids = ShowoModel.image_ids

    def unhidden(model, before, codes):
        return image_ids(model, before, codes % model.num_codes)

    monkeypatch.setattr(ShowoModel, "image_ids", unhidden)


@pytest.mark.parametrize("compare", [sft_loss_and_reference, dpo_loss_and_reference])
@pytest.mark.parametrize(
    "mutate", [causal_among_image_tokens, features_in_their_own_places, everything_hidden, codes_see_themselves]
)
def test_mutants_of_the_likelihood_are_caught(mutate, compare, model, tmp_path, monkeypatch):
    mutate(monkeypatch)
    loss, reference = compare(model, tmp_path)
    assert math.isfinite(loss) and loss != pytest.approx(reference, rel=1e-3)


def test_dpo_does_not_begin_at_ln_2_where_every_call_draws_an_order_of_its_own(model, tmp_path, monkeypatch):
    calls = iter(range(100))

    def drawn_anew(model, ids, mask):
        return random_orders(torch.full((len(ids),), 1000 + next(calls)), 36, 4)

    monkeypatch.setattr(ShowoModel, "orders", drawn_anew)
    loss = trl_loss(new_trainer(model, "dpo", tmp_path, nll_weight=0.0))
    assert abs(loss.item() - math.log(2)) > 1e-3


@pytest.mark.parametrize("quantity", ["generation", "caption", "verdict"])
def test_what_the_kernel_differentiates_agrees_with_itself_and_with_finite_differences(model, quantity):
    parameters = trained_parameters(model, r"language_model\.layers\.3")
    codes = random_codes(2)
    pairs = Pairs(PROMPTS[:2], codes, model.decode_images(codes))
    gradients = per_example_gradients(model, parameters, quantity, pairs)
    direction = (
        gradients.mean(dim=0) / gradients.mean(dim=0).norm()
    )  # of the gradients themselves, so that rounding is small
    slopes = gradients @ direction
    torch.testing.assert_close(
        directional_derivatives(model, parameters, quantity, pairs, direction), slopes, rtol=1e-3, atol=1e-3
    )
    start = parameters_to_vector(parameters.values()).detach().clone()
    found = []
    for step in (1e-2, -1e-2):
        vector_to_parameters(start + step * direction, parameters.values())
        found.append(values(model, quantity, pairs))
    torch.testing.assert_close((found[0] - found[1]) / 2e-2, slopes, rtol=2e-2, atol=1e-2)


# A checkpoint in the released layout


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    path = tmp_path_factory.mktemp("released")
    new_showo_checkpoint(path)
    return path


def test_a_released_checkpoint_is_read_and_written_in_its_layout(released, tmp_path):
    model = load_model(released, SHOWO_MODEL)
    assert model.codes_per_image == 16 and model.num_codes == 32
    assert (
        model.language_model.config.qk_layernorm
        and model.model.get_input_embeddings().num_embeddings == model.first_code + 33
    )
    codes, _ = model.sample_images(PROMPTS, [0, 1, 2], 3.0, 1.0)
    images = model.decode_images(codes)
    assert images.shape == (3, 8, 8, 3) and codes.max() < 32
    assert len(model.written_answers(images, PROMPTS, 4)) == 3
    model.save(tmp_path / "again")
    again = load_model(tmp_path / "again", SHOWO_MODEL)
    assert torch.equal(again.sample_images(PROMPTS, [0, 1, 2], 3.0, 1.0)[0], codes)
    assert torch.equal(again.alignment_logits(images, PROMPTS), model.alignment_logits(images, PROMPTS))
    for file in ("model.safetensors", "magvitv2/model.safetensors"):
        before, after = load_file(released / file), load_file(tmp_path / "again" / file)
        assert all(torch.equal(before[name], after[name]) for name in before) and before.keys() == after.keys()


def test_requests_and_questions_are_written_as_the_public_code_writes_them(released):
    """Ids in Show-o's order of added words: [PAD], <|soi|>, <|eoi|>, <|sov|>, <|eov|>, <|t2i|>, <|mmu|>, ..."""
    model = load_model(released, SHOWO_MODEL)
    text = PreTrainedTokenizerFast.from_pretrained(released / "phi-1_5")
    size, end = len(text), text.eos_token_id
    (ids,) = model.generation_ids([PROMPTS[1]])
    assert ids == [size + 5, end, *text.encode(PROMPTS[1]), end, size + 1]
    images = np.random.default_rng(0).integers(256, size=(1, 8, 8, 3), dtype=np.uint8)
    question, _ = model._questions(images, [PROMPTS[1]])
    codes = model.vqmodel.quantize(model.vqmodel.encoder(torch.tensor(images).permute(0, 3, 1, 2) / 127.5 - 1))
    words = text.encode(f"USER: \nDoes this image describe {PROMPTS[1]}? Answer yes or no. ASSISTANT:")
    expected = [size + 6, size + 1, *(codes.flatten() + size + 10).tolist(), size + 2, end, *words]
    assert model._with_codes(model.pixel_values(images), question)[0].tolist() == expected


def test_images_are_seen_and_painted_in_single_precision_whatever_the_language_model_has(released):
    model, half = (load_model(released, {**SHOWO_MODEL, "dtype": dtype}) for dtype in ("float32", "bfloat16"))
    assert half.language_model.dtype == torch.bfloat16
    images = np.random.default_rng(0).integers(256, size=(8, 8, 8, 3), dtype=np.uint8)
    codes = [seeing.encode_pixels(seeing.pixel_values(images)) for seeing in (model, half)]
    assert torch.equal(*codes)
    assert (model.decode_images(codes[0]) == half.decode_images(codes[1])).all()
    prompts = [PROMPTS[0]] * 8
    logits = [asked.alignment_logits(images, prompts) for asked in (model, half)]
    assert not torch.equal(*logits)
    torch.testing.assert_close(*logits, atol=0.1, rtol=0.1)


def test_written_answers_are_the_likeliest_words_in_turn(released):
    model = load_model(released, SHOWO_MODEL)
    images = np.random.default_rng(0).integers(256, size=(2, 8, 8, 3), dtype=np.uint8)
    for image, prompt, answer in zip(images, PROMPTS, model.written_answers(images, PROMPTS[:2], 5), strict=False):
        ids, _ = model._questions(image[None], [prompt])
        ids, written = model._with_codes(model.pixel_values(image[None]), ids), []
        for _ in range(5):
            with torch.no_grad():
                states = model.read(ids, torch.ones_like(ids))
            word = model.model.lm_head(states[0, -1])[: model.first_code].argmax()
            written.append(word.item())
            ids = torch.cat([ids, word[None, None]], dim=1)
        assert answer == model.processor.tokenizer.decode(written, skip_special_tokens=True)


@pytest.mark.parametrize(
    "changes", [{"w_clip_vit": True}, {"vocab_size": None}], ids=["another encoder", "another model"]
)
def test_checkpoints_of_other_models_are_one_sentence(released, tmp_path, changes):
    path = shutil.copytree(released, tmp_path / "other")
    config = json.loads((path / "config.json").read_text()) | changes
    (path / "config.json").write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    with pytest.raises(
        SystemExit, match="is not a readable Showo checkpoint, .*: its config.json is not that of a Show-o"
    ):
        load_model(path, SHOWO_MODEL)


def test_a_vocabulary_of_another_size_is_refused(released):
    model = load_model(released, SHOWO_MODEL)
    config = {**model.model.config, "vocab_size": model.model.config["vocab_size"] + 1}
    wording = {key: SHOWO_MODEL[key] for key in ("question", "accept", "reject", *ShowoModel.settings)}
    with pytest.raises(ValueError, match="is not its words, its image codes and one mask token"):
        ShowoModel(Showo(config, model.model.showo, model.vqmodel), model.processor, **wording)


def test_adapters_train_every_linear_layer(released, tmp_path):
    model = load_model(released, SHOWO_MODEL)
    codes = np.random.default_rng(0).integers(32, size=(3, 16)).astype(np.int16)
    training_set = pd.DataFrame({"prompt": PROMPTS, "chosen": [0, 1, 2]})
    before = {name: value.clone() for name, value in model.model.state_dict().items()}
    log = post_training.post_train(model, training_set, codes, {**SFT, "lora": {"r": 4, "lora_alpha": 8}}, 0, tmp_path)
    changed = {name for name, value in model.model.state_dict().items() if not torch.equal(value, before[name])}
    linear = ("q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2")
    layers = range(model.language_model.config.num_hidden_layers)
    parts = [f"{'mlp' if name.startswith('fc') else 'self_attn'}.{name}" for name in linear]
    assert changed == {f"showo.model.layers.{layer}.{part}.weight" for layer in layers for part in parts}
    assert log["loss"].iloc[-1] < log["loss"][0]


@pytest.mark.parametrize("config", [SFT, DPO], ids=["sft", "dpo"])
def test_training_changes_the_language_model_only(released, tmp_path, config):
    model = load_model(released, SHOWO_MODEL)
    codes = np.random.default_rng(0).integers(32, size=(6, 16)).astype(np.int16)
    training_set = pd.DataFrame({"prompt": PROMPTS, "chosen": [0, 1, 2], "rejected": [3, 4, 5]})
    before = {name: value.clone() for name, value in model.model.state_dict().items()}
    with torch.no_grad():
        nll = -model.image_log_probs(PROMPTS, torch.from_numpy(codes[:3]).long()).mean().item()
    log = post_training.post_train(model, training_set, codes, config, 0, tmp_path)
    changed = {name for name, value in model.model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and all(name.startswith("showo.model.") for name in changed)
    assert log["loss"][0] == pytest.approx(math.log(2) + 0.5 * nll if config is DPO else nll, rel=1e-5)
    assert log["loss"].iloc[-1] < log["loss"][0]
