"""Properties that every backbone must have (architecture.md section 4), on the embedded models with random weights."""

import shutil

import numpy as np
import pytest
import torch
from families import (
    AFTER_PROMPT,
    AUTOREGRESSIVE,
    code_logits,
    decoded,
    drawing_inputs,
    drawn,
    greedy_codes,
    text_inputs,
    text_logits,
)
from scipy.stats import chisquare, kstest, pearsonr
from settings import FAMILIES, MODEL
from torch.nn.functional import log_softmax

from replication import image_cache
from replication.models.emu3 import Emu3Model
from replication.models.interface import load_model
from replication.models.janus import JanusModel
from replication.models.showo import ShowoModel
from replication.models.tiny import CODEBOOK_SIZE
from replication.models.worded import DECODED_AT_ONCE
from replication.sampling import gumbel_noise, image_seed, random_bits

PROMPTS = ["a picture of a striped purple triangle", "an image of a triangle", "a red circle left of a blue square"]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return request.param


def prompts_and_seeds(number):
    return [PROMPTS[i % 3] for i in range(number)], list(range(number))


def random_images(number, size=24):
    return np.random.default_rng(0).integers(256, size=(number, size, size, 3), dtype=np.uint8)


@pytest.mark.parametrize("guidance_scale", [1.0, 2.5])
def test_sampler_and_likelihood_agree(model, family, guidance_scale):
    prompts, seeds = prompts_and_seeds(9)
    with torch.no_grad():
        codes, log_probs, expected = drawn(family, model, prompts, seeds, guidance_scale, 0.9)
    assert codes.shape == expected.shape == (9, 36)
    assert expected.std() > 0.5  # the distributions are not flat, so agreement means something
    torch.testing.assert_close(log_probs, expected.sum(dim=1), atol=1e-3, rtol=1e-5)
    assert (log_probs - expected.sum(dim=1)).abs().max() / 36 < 1e-4  # per code


@pytest.mark.parametrize("family", AUTOREGRESSIVE, indirect=True)
def test_sampling_log_probs_are_of_the_guided_tempered_distribution(model, family):
    prompts, seeds = [PROMPTS[0]] * 4, list(range(4))
    input_ids, mask = drawing_inputs(family, model, PROMPTS[:1])
    blank = input_ids.clone()
    blank[:, 1 : -len(AFTER_PROMPT[family])] = model.processor.tokenizer.pad_token_id
    samples = model.sampler.sample(input_ids, blank, mask, [0] * 4, seeds, 2.0, 0.7)
    with torch.no_grad():
        logits = [code_logits(family, model, ids, samples.codes) for ids in (input_ids, blank)]
    mixed = (logits[1] + 2.0 * (logits[0] - logits[1])) / 0.7
    expected = log_softmax(mixed, dim=-1).gather(2, samples.codes[..., None])[..., 0].sum(dim=1)
    torch.testing.assert_close(samples.sampling_log_probs, expected, atol=1e-3, rtol=1e-4)
    assert (samples.codes == model.sample_images(prompts, seeds, 2.0, 0.7)[0]).all()


def test_requests_for_images_are_the_processors_own(model, family):
    ours, expected = model.generation_inputs(PROMPTS), drawing_inputs(family, model, PROMPTS)
    assert (expected[1] == 0).any()  # left padding is exercised
    for values, others in zip(ours, expected, strict=True):
        assert torch.equal(values, others)


def test_image_of_a_seed_is_the_same_in_any_company(model):
    prompts, seeds = prompts_and_seeds(24)
    codes, log_probs = model.sample_images(prompts, seeds, 1.5, 1.0)
    backwards, _ = model.sample_images(prompts[::-1], seeds[::-1], 1.5, 1.0)
    assert (backwards.flip(0) == codes).all()
    for i in (0, 7, 23):
        alone, alone_log_prob = model.sample_images([prompts[i]], [seeds[i]], 1.5, 1.0)
        assert (alone[0] == codes[i]).all()
        torch.testing.assert_close(alone_log_prob[0], log_probs[i], atol=1e-3, rtol=1e-5)
    assert len(codes.unique(dim=0)) == 24


def test_low_temperature_equals_greedy_generate(model, family):
    greedy = greedy_codes(family, model, PROMPTS, 3)
    ours, _ = model.sample_images(PROMPTS, [0, 1, 2], 3, 1e-6)
    assert (ours == greedy).all()


@pytest.mark.parametrize("family", AUTOREGRESSIVE, indirect=True)
def test_unguided_sampling_leaves_the_unconditional_half_out(model, family):
    batches = []
    norm = model.language_model.norm
    handle = norm.register_forward_hook(lambda m, i, output: batches.append(len(output)))
    model.sample_images(PROMPTS, [0, 1, 2], 1.0, 1.0)
    model.sample_images(PROMPTS, [0, 1, 2], 2.0, 1.0)
    handle.remove()
    read = {"janus": 35, "emu3": 35 + 5}[family]  # all codes but the last, and the ends of all rows but the last
    assert batches == [3] * (1 + read) + [6] * (1 + read)


@pytest.mark.parametrize("family", AUTOREGRESSIVE, indirect=True)
def test_prompts_are_read_once_and_the_unconditional_one_once_per_length(model):
    read = []
    embed_tokens = model.language_model.embed_tokens
    handle = embed_tokens.register_forward_hook(lambda m, inputs, output: read.append(len(inputs[0])))
    prompts, seeds = prompts_and_seeds(30)
    model.sample_images(prompts, seeds, 2.0, 1.0)
    model.sample_images([PROMPTS[0], "a picture of a dotted green square"] * 5, list(range(10)), 2.0, 1.0)
    handle.remove()
    assert read == [3 + 3, 2 + 1]  # three prompts of three lengths; two of one length


@pytest.mark.parametrize("family", AUTOREGRESSIVE, indirect=True)
def test_the_cache_is_used_again_for_batches_of_the_same_shape(model):
    model.sample_images(PROMPTS, [0, 1, 2], 1.0, 1.0)
    cache = model.sampler.images.cache
    again, _ = model.sample_images(PROMPTS[::-1], [5, 4, 3], 1.0, 1.0)
    assert model.sampler.images.cache is cache
    model.sample_images(PROMPTS[:2], [0, 1], 1.0, 1.0)
    assert model.sampler.images.cache is not cache
    fresh, _ = model.sample_images(PROMPTS[::-1], [5, 4, 3], 1.0, 1.0)
    assert (again == fresh).all()  # nothing of the first batch was left in the cache


@pytest.mark.parametrize("family", AUTOREGRESSIVE, indirect=True)
def test_a_step_reads_the_cache_as_far_as_it_is_written_in_sixteens(model):
    seen = []
    attention = model.language_model.layers[-1].self_attn
    handle = attention.register_forward_pre_hook(
        lambda module, inputs, named: seen.append(named["attention_mask"]), with_kwargs=True
    )
    model.sample_images(PROMPTS, [0, 1, 2], 1.0, 1.0)
    handle.remove()
    first, *steps = seen
    for end, mask in enumerate(steps, start=first.shape[-1] + 1):
        assert mask.shape[-1] == -(-end // 16) * 16
        assert mask[..., first.shape[-1] : end].all() and not mask[..., end:].any()


@pytest.mark.parametrize("family", AUTOREGRESSIVE, indirect=True)
def test_a_cache_read_in_parts_draws_the_same(model, monkeypatch):
    """As compiled steps read it on a GPU: what they are given has few widths."""
    usual, _ = model.sample_images(PROMPTS, [0, 1, 2], 2.0, 1.0)
    monkeypatch.setattr(image_cache, "CACHE_PARTS", 2)
    monkeypatch.setattr(model.sampler, "images", image_cache.RowAfterRow(compiled=True))
    widths = []
    handle = model.language_model.layers[0].self_attn.register_forward_pre_hook(
        lambda module, inputs, named: widths.append(named["attention_mask"].shape[-1]), with_kwargs=True
    )
    in_parts, _ = model.sample_images(PROMPTS, [0, 1, 2], 2.0, 1.0)
    handle.remove()
    layer = model.sampler.images.cache.layers[0]
    part = image_cache.cache_length(layer.max_cache_len // 2)
    assert set(widths[1:]) == {part, layer.max_cache_len} and layer.read == layer.max_cache_len
    assert (in_parts == usual).all()


@pytest.fixture
def compiled(checkpoint, family):
    return load_model(checkpoint, {**FAMILIES[family], "compile": True})


def same_images(model, compiled):
    """Both draw and decode the same, twice; returns prompts and images of the second time."""
    prompts, seeds = prompts_and_seeds(6)
    for first_seed in (0, 10):
        drawn = prompts, [seed + first_seed for seed in seeds], 2.0, 0.9
        (codes, log_probs), (same, same_log_probs) = model.sample_images(*drawn), compiled.sample_images(*drawn)
        assert (codes == same).all()
        torch.testing.assert_close(log_probs, same_log_probs, atol=1e-3, rtol=1e-5)
    images = model.decode_images(codes)
    assert np.abs(images.astype(int) - compiled.decode_images(codes).astype(int)).max() <= 1
    return prompts, images


@pytest.mark.slow
@pytest.mark.parametrize("family", ["emu3", "showo"], indirect=True)
def test_compiled_sampling_draws_the_same_images(model, compiled):
    same_images(model, compiled)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["janus"], indirect=True)
def test_another_cache_draws_the_same_and_compiled_weights_are_frozen_in(model, compiled, monkeypatch):
    monkeypatch.setattr(image_cache, "VECTOR", 2)  # images share what is read of their prompts
    same_images(model, compiled)
    compiled.sampler.images.cache = None  # the next has the same shape, so that the step is not compiled again
    prompts, images = same_images(model, compiled)
    layers = compiled.sampler.images.cache.layers
    written = {int(layer.cumulative_length) for layer in layers}
    assert written == {model.codes_per_image - 1}  # the last code is not read
    with torch.no_grad():
        logits = [asked.alignment_logits(images, prompts) for asked in (model, compiled)]
        torch.testing.assert_close(*logits, atol=1e-3, rtol=1e-5)
        for layer in compiled.language_model.layers:
            layer.mlp.down_proj.weight.zero_()
        assert torch.equal(compiled.alignment_logits(images, prompts), logits[1])


def test_random_bits_are_those_of_splitmix64():
    """The sequence of state 0 as published with the generator, and one far stream recomputed with Python's integers."""
    published = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F, 0xF88BB8A8724C81EC]
    bits = random_bits(torch.tensor([0, 2**32 - 1]), torch.arange(1, 5))
    assert [bit % 2**64 for bit in bits[0].tolist()] == published

    def output(position):
        z = position * 0x9E3779B97F4A7C15 % 2**64
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
        return z ^ z >> 31

    assert [bit % 2**64 for bit in bits[1].tolist()] == [output(((2**32 - 1) << 32) + n) for n in range(1, 5)]


def test_gumbel_noise_is_standard_and_independent():
    noise = (
        torch.stack([gumbel_noise(torch.arange(40), 320 * step + torch.arange(320)) for step in range(36)], dim=1)
        .double()
        .numpy()
    )
    assert np.isfinite(noise).all()
    assert kstest(noise.ravel(), "gumbel_r").pvalue > 1e-3
    for one, other in ((noise[1:], noise[:-1]), (noise[:, 1:], noise[:, :-1]), (noise[..., 1:], noise[..., :-1])):
        assert pearsonr(one.ravel(), other.ravel()).pvalue > 1e-3


def test_gumbel_noise_samples_the_softmax():
    logits = torch.tensor([2.0, 0.0, 1.0, -1.0])
    counts = torch.bincount((logits + gumbel_noise(torch.arange(4000), torch.arange(4))).argmax(dim=1), minlength=4)
    assert chisquare(counts, 4000 * logits.double().softmax(dim=0)).pvalue > 1e-3


def test_image_seeds_name_their_stream():
    seeds = [image_seed(run, use, prompt, i) for run in (0, 1) for use in "ab" for prompt in (1, 11) for i in (1, 11)]
    assert len(set(seeds)) == 16
    assert image_seed(0, "evaluation", 3, 1) == 1909469218  # results depend on it: do not change


def test_temperature_must_be_positive(model):
    with pytest.raises(ValueError, match="must be positive"):
        model.sample_images(PROMPTS, [0, 1, 2], 1.0, 0.0)


def test_decoded_images_are_the_processors_own(model, family):
    codes = torch.randint(CODEBOOK_SIZE, (3, 36), generator=torch.Generator().manual_seed(0))
    images = model.decode_images(codes)
    assert images.shape == (3, 24, 24, 3) and images.dtype == np.uint8
    expected = decoded(family, model, codes)
    assert np.abs(images.astype(int) - expected.astype(int)).max() <= 1


def test_decoding_in_batches_changes_no_more_than_a_level(model):
    codes = torch.randint(CODEBOOK_SIZE, (DECODED_AT_ONCE + 3, 36), generator=torch.Generator().manual_seed(0))
    images = model.decode_images(codes).astype(int)
    alone = np.concatenate([model.decode_images(code[None]) for code in codes]).astype(int)
    assert np.abs(images - alone).max() <= 1  # another order of sums may fall on the other side of a level


@pytest.mark.parametrize("size", [24, 30])
def test_pixel_values_are_the_processors_own(model, size):
    images = random_images(5, size)
    expected = model.processor.image_processor(list(images), return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(model.pixel_values(images), expected, atol=1e-6, rtol=0)


def test_alignment_logits_are_answer_log_ratios(model, family):
    images = random_images(2)
    ids = model.processor.tokenizer.convert_tokens_to_ids
    for image, prompt, logit in zip(images, PROMPTS, model.alignment_logits(images, PROMPTS[:2]), strict=False):
        inputs = text_inputs(family, model, f"<image> does this image describe {prompt} ?", image)
        log_probs = log_softmax(text_logits(family, model, inputs)[-1], dim=-1)
        torch.testing.assert_close(logit, log_probs[ids("yes")] - log_probs[ids("no")], atol=1e-4, rtol=1e-4)


def test_prompt_log_probs_are_of_the_caption(model, family):
    images, prompt = random_images(1), PROMPTS[2]
    inputs = text_inputs(family, model, f"<image> describe this image : {prompt} <eos>", images[0])
    log_probs = log_softmax(text_logits(family, model, inputs)[:-1], dim=-1)
    caption = model.processor.tokenizer.convert_tokens_to_ids([*prompt.split(), "<eos>"])
    expected = log_probs[-len(caption) :].gather(1, torch.tensor(caption)[:, None]).sum()
    torch.testing.assert_close(model.prompt_log_probs(images, [prompt])[0], expected, atol=1e-3, rtol=1e-5)


def test_batching_and_padding_change_nothing(model):
    images = random_images(3)
    codes = torch.randint(CODEBOOK_SIZE, (3, 36), generator=torch.Generator().manual_seed(1))
    for together, alone in [
        (model.alignment_logits(images, PROMPTS), lambda i: model.alignment_logits(images[i : i + 1], [PROMPTS[i]])),
        (model.image_log_probs(PROMPTS, codes), lambda i: model.image_log_probs([PROMPTS[i]], codes[i : i + 1])),
        (model.prompt_log_probs(images, PROMPTS), lambda i: model.prompt_log_probs(images[i : i + 1], [PROMPTS[i]])),
    ]:
        torch.testing.assert_close(together, torch.cat([alone(i) for i in range(3)]), atol=1e-3, rtol=1e-4)


def test_log_probs_are_differentiable(model):
    images = random_images(3)
    weight = model.language_model.layers[0].self_attn.q_proj.weight
    codes = torch.zeros(3, 36, dtype=torch.long)
    for values in (
        model.alignment_logits(images, PROMPTS),
        model.image_log_probs(PROMPTS, codes),
        model.prompt_log_probs(images, PROMPTS),
    ):
        (gradient,) = torch.autograd.grad(values.sum(), weight)
        assert gradient.abs().max() > 0


def test_saved_model_is_the_same_model(model, family, tmp_path):
    model.save(tmp_path)
    again = load_model(tmp_path, FAMILIES[family])
    assert (
        model.sample_images(PROMPTS, [0, 1, 2], 1.0, 1.0)[0] == again.sample_images(PROMPTS, [0, 1, 2], 1.0, 1.0)[0]
    ).all()
    images = random_images(3)
    assert torch.equal(model.alignment_logits(images, PROMPTS), again.alignment_logits(images, PROMPTS))


def test_damaged_checkpoints_are_one_sentence(checkpoint, family, tmp_path):
    with pytest.raises(SystemExit, match=f"is not a readable {family.title()} checkpoint"):
        load_model(tmp_path / "nowhere", FAMILIES[family])
    damaged = shutil.copytree(checkpoint, tmp_path / "truncated")
    weights = (damaged / "model.safetensors").read_bytes()
    (damaged / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(SystemExit, match=f"is not a readable {family.title()} checkpoint") as stop:
        load_model(damaged, FAMILIES[family])
    assert "\n" not in str(stop.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_one_sentence(checkpoint, family):
    with pytest.raises(SystemExit, match="torch sees no GPU here"):
        load_model(checkpoint, {**FAMILIES[family], "device": "cuda"})


def test_a_model_is_loaded_in_the_precision_asked_for(checkpoint, family):
    model = load_model(checkpoint, {**FAMILIES[family], "dtype": "bfloat16"})
    tokenizer = {id(parameter) for parameter in model.vqmodel.parameters()}
    rest = {parameter.dtype for parameter in model.model.parameters() if id(parameter) not in tokenizer}
    assert rest == {torch.bfloat16}
    images_in = torch.float32 if family == "showo" else torch.bfloat16  # its rounding changes codes, as the class says
    assert {parameter.dtype for parameter in model.vqmodel.parameters()} == {images_in}
    _, log_probs, forced = drawn(family, model, PROMPTS, [0, 1, 2], 2.0, 1.0)
    assert log_probs.dtype == torch.float32
    torch.testing.assert_close(log_probs, forced.sum(dim=1).detach(), rtol=0.02, atol=0.0)


def test_answers_must_be_single_tokens(checkpoint, family):
    for accept in ("perhaps", "yes no"):
        with pytest.raises(SystemExit, match="do not fit: .* one token"):
            load_model(checkpoint, {**FAMILIES[family], "accept": accept})
    with pytest.raises(SystemExit, match="do not fit: .* must contain {prompt}"):
        load_model(checkpoint, {**FAMILIES[family], "question": "is it so ?"})


def test_the_class_of_a_model_is_named_by_its_configuration(checkpoint, family):
    expected = {"janus": JanusModel, "emu3": Emu3Model, "showo": ShowoModel}[family]
    assert type(load_model(checkpoint, FAMILIES[family])) is expected
    for name in ("replication.models.janus.Jannus", "replication.modles.janus.JanusModel"):
        with pytest.raises(SystemExit, match=f"names the class {name}, which cannot be imported"):
            load_model(checkpoint, {**MODEL, "class": name})
