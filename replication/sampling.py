"""Batched autoregressive sampling of image codes with classifier-free guidance and one random stream per image.

transformers' `generate` draws all images of a batch from one global stream; that of Janus cannot sample without guidance, does
not return log-probabilities and reads a prompt once per image. Hence this loop over the same modules.
"""

import hashlib
from typing import NamedTuple

import torch
from torch.nn.functional import log_softmax
from transformers import Cache, DynamicCache
from transformers.cache_utils import StaticLayer

CACHE_MULTIPLE = 16  # lengths of the cache, so that batches with other prompts find it (and its compiled step) again
CACHE_PARTS = (
    4  # a compiled step reads the parts that are written to: more of them read less, but each is compiled by itself
)
COMPILED_SHAPES = 64  # of one function; at torch's own limit of 8 it goes on uncompiled


class Samples(NamedTuple):
    """Sampled images: what was drawn and how likely it was.

    codes: (B, T) int64.
    log_probs: (B,) log-probability of the codes under the model itself, without guidance and at temperature 1. This is
        log pi(x | y), the quantity that teacher forcing recomputes and that training changes.
    sampling_log_probs: (B,) log-probability under the guided, tempered distribution that the codes were drawn from.
    """

    codes: torch.Tensor
    log_probs: torch.Tensor
    sampling_log_probs: torch.Tensor


def image_seed(seed, purpose, prompt_id, index):
    """Seed (32 bits) of image `index` of a prompt in run `seed`; streams of different purposes are independent."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{prompt_id}/{index}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


def position_ids(attention_mask):
    """Positions (B, L) that count real tokens only, so that left padding does not move a prompt."""
    return (attention_mask.cumsum(dim=-1) - 1).clamp(min=0)


def random_bits(seeds, positions):
    """(B, N) int64, 64 random bits each: the outputs `positions`, (N,) or for each row its own (B, N), of stream seeds[i].

    Streams are stretches of 2**32 outputs of one SplitMix64 sequence (Steele, Lea and Flood 2014). Integer arithmetic gives
    the same bits on every device, and a row depends on its own seed alone. The masks make shifts of signed integers logical.
    """
    z = ((seeds[:, None] << 32) + positions) * (0x9E3779B97F4A7C15 - 2**64)
    z = (z ^ ((z >> 30) & 0x3FFFFFFFF)) * (0xBF58476D1CE4E5B9 - 2**64)
    z = (z ^ ((z >> 27) & 0x1FFFFFFFFF)) * (0x94D049BB133111EB - 2**64)
    return z ^ ((z >> 31) & 0x1FFFFFFFF)


def gumbel_noise(seeds, positions):
    """(B, N) standard Gumbel noise, as of `random_bits`.

    The largest of logits + noise is a draw from softmax(logits). Unlike the inverse of the cumulative distribution, it is
    indifferent to rounding errors that accumulate over the codebook, so an image hardly ever depends on its batch.
    """
    bits = random_bits(seeds, positions)
    uniform = (((bits >> 32) & 0xFFFFFFFF).float() + 0.5) * 2.0**-32
    return -(-torch.log1p(-uniform.clamp(max=1 - 2.0**-24))).log()


def draw_codes(logits, seeds, step, guidance_scale, temperature):
    """Draw one code per image: codes, log-probabilities under the model, and under the distribution drawn from, (B,) each.

    logits: (B, V), or with guidance (2 B, V), the unconditional ones last.
    """
    own = mixed = logits
    if guidance_scale != 1:
        own, unconditional = logits.chunk(2)
        mixed = unconditional + guidance_scale * (own - unconditional)
    mixed = mixed / temperature
    positions = torch.arange(logits.shape[1], device=seeds.device) + step * logits.shape[1]
    codes = (mixed + gumbel_noise(seeds, positions)).argmax(dim=-1)
    log_probs, sampling_log_probs = (
        log_softmax(scores, dim=-1).gather(1, codes[:, None])[:, 0] for scores in (own, mixed)
    )
    return codes, log_probs, sampling_log_probs


def places_of_codes(number, row_length):
    """(number,) where each code is predicted, counted from the last token of the prompt: every end of a row is read, too."""
    codes = torch.arange(number)
    return codes + codes // row_length


def cache_length(tokens):
    """`tokens`, rounded up to a length that a cache has."""
    return -(-tokens // CACHE_MULTIPLE) * CACHE_MULTIPLE


def compile_for_inference(function, device, cuda_graphs=False):
    """`function` through torch.compile, for every shape of its inputs anew.

    On a processor the weights are frozen in, packed for products and convolutions: changes of them are not seen afterwards.
    cuda_graphs: replay it as one CUDA graph on a GPU.
    """
    torch._dynamo.config.recompile_limit = COMPILED_SHAPES
    torch._dynamo.config.capture_scalar_outputs = True
    options = {"freezing": True} if device.type == "cpu" else {"triton.cudagraphs": cuda_graphs}
    return torch.compile(function, dynamic=False, options=options)


class WrittenLayer(StaticLayer):
    """A layer of a static cache whose first `read` positions are all that a step reads: attention over what is not yet written
    would be paid for and masked."""

    read = None

    def update(self, key_states, value_states, *args, **kwargs):
        keys, values = super().update(key_states, value_states, *args, **kwargs)
        return keys[:, :, : self.read], values[:, :, : self.read]


class ImageSampler:
    """Samples image codes of an `AutoregressiveModel`; keeps one key-value cache, and uses it again for batches of the same
    shape.

    The ends of rows are read and not drawn: they take no random number and have no likelihood.
    compiled: run the one-token step and the draw through torch.compile (CUDA graphs on a GPU). It costs seconds to compile
    for each shape of a batch, and is worth it from some ten thousand images on; the codes are the same, up to rounding.
    """

    def __init__(self, unified, compiled):
        self.unified, self.compiled = unified, compiled
        self.cache = None
        self.next_logits, self.draw_codes = self._next_logits, draw_codes
        if compiled:
            self.next_logits = compile_for_inference(self._next_logits, unified.model.device, cuda_graphs=True)
            self.draw_codes = torch.compile(draw_codes, dynamic=False)

    @torch.no_grad()
    def sample(self, input_ids, unconditional_ids, attention_mask, prompt_of_image, seeds, guidance_scale, temperature):
        """Sample one image per seed.

        input_ids, unconditional_ids, attention_mask: (P, L), left padded; the last token predicts the first code. Every
            different prompt is processed once, however many images are drawn from it.
        prompt_of_image: (B,) row of the prompt of each image. seeds: B integers; the image of a seed does not depend on
            the other images of the batch.
        guidance_scale: g in logits = unconditional + g (conditional - unconditional). 1 is plain sampling and leaves the
            unconditional half out. temperature: > 0.

        Returns `Samples`. Raises ValueError for a temperature that is not positive.
        """
        if temperature <= 0:
            raise ValueError(
                f"The sampling temperature must be positive, not {temperature}; use a small one for greedy images."
            )
        guided, num_steps, row_length = guidance_scale != 1, self.unified.codes_per_image, self.unified.row_length
        embeddings = self.unified.code_table()
        rows = torch.as_tensor(prompt_of_image, device=input_ids.device)
        prompts = torch.stack([input_ids, attention_mask], dim=1)
        if guided:
            unconditional = torch.stack([unconditional_ids, attention_mask], dim=1)
            unconditional, row_of_prompt = unconditional.unique(dim=0, return_inverse=True)
            rows = torch.cat([rows, row_of_prompt[rows] + len(prompts)])
            prompts = torch.cat([prompts, unconditional])
        read = num_steps + (num_steps - 1) // row_length
        logits, mask = self._read_prompts(prompts[:, 0], prompts[:, 1], rows, read)

        seeds = torch.as_tensor(seeds, device=input_ids.device)
        steps = torch.arange(num_steps, device=input_ids.device)
        columns = torch.arange(mask.shape[1], device=input_ids.device)
        part = cache_length(-(-mask.shape[1] // CACHE_PARTS)) if self.compiled else CACHE_MULTIPLE
        drawn, end = [], prompts.shape[2]
        for step in range(num_steps):
            if drawn:
                last_codes = drawn[-1][0]
                tokens = [last_codes.repeat(2) if guided else last_codes]
                if step % row_length == 0:
                    tokens.append(torch.full_like(tokens[0], self.unified.num_codes))
                for token in tokens:
                    end += 1
                    written = min(-(-end // part) * part, mask.shape[1])
                    for layer in self.cache.layers:
                        layer.read = written
                    visible = (mask & (columns < end))[:, :written]
                    position = visible.sum(dim=-1, keepdim=True) - 1
                    logits = self.next_logits(embeddings[token][:, None], visible[:, None, None], position, self.cache)
            drawn.append(self.draw_codes(logits, seeds, steps[step], guidance_scale, temperature))
        codes, log_probs, sampling_log_probs = map(torch.stack, zip(*drawn, strict=True))
        return Samples(codes.T.contiguous(), log_probs.sum(dim=0), sampling_log_probs.sum(dim=0))

    def _read_prompts(self, input_ids, attention_mask, rows, number):
        """Logits of the first code of `rows`, and the mask (rows, cache length) of what they may see once `number` tokens
        of an image are written; the prompts' keys and values are left in the cache."""
        language_model = self.unified.language_model
        read = DynamicCache(config=language_model.config)
        hidden_states = language_model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids(attention_mask),
            past_key_values=read,
        ).last_hidden_state[rows, -1]
        length = input_ids.shape[1]
        width = cache_length(length + number)
        if self.cache is None or self.cache.layers[0].keys.shape[::2] != (len(rows), width):
            self.cache = Cache(layers=[WrittenLayer(width) for _ in read.layers])
            keys = read.layers[0].keys
            self.cache.early_initialization(len(rows), keys.shape[1], keys.shape[3], keys.dtype, keys.device)
        for layer, prompt in zip(self.cache.layers, read.layers, strict=True):
            layer.keys[:, :, :length] = prompt.keys[rows]
            layer.values[:, :, :length] = prompt.values[rows]
            layer.cumulative_length.fill_(length)
        mask = torch.cat([attention_mask, attention_mask.new_ones(len(input_ids), width - length)], dim=1)
        return self.unified.code_logits(hidden_states).float(), mask[rows].bool()

    def _next_logits(self, inputs_embeds, attention_mask, position_ids, cache):
        """Logits (rows, V) after one more image token; the cache takes its keys and values in place."""
        hidden_states = self.unified.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=cache,
        ).last_hidden_state[:, -1]
        return self.unified.code_logits(hidden_states).float()
