"""Batched autoregressive sampling of image codes with classifier-free guidance and one random stream per image.

transformers' `generate` draws all images of a batch from one global stream; that of Janus cannot sample without guidance, does
not return log-probabilities and reads a prompt once per image. Hence this loop over the same modules.
"""

import hashlib
from typing import NamedTuple

import torch
from torch.nn.functional import log_softmax
from transformers import DynamicCache

from replication.image_cache import RowAfterRow, SideBySide

COMPILED_SHAPES = 64  # of one function; at torch's own limit of 8 it goes on uncompiled
ON_PROCESSORS = {
    "freezing": True,  # weights are constants, packed for products and convolutions
    "cpp.enable_concat_linear": True,  # products of the same input are one
    "realize_opcount_threshold": 12,  # a rotated query or key is stored, its sines are not computed anew for each use
}


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


def compile_for_inference(function, device, cuda_graphs=False):
    """`function` through torch.compile, for every shape of its inputs anew.

    On a processor the weights are frozen in: changes of them are not seen afterwards. cuda_graphs: replay it as one CUDA graph
    on a GPU.
    """
    torch._dynamo.config.recompile_limit = COMPILED_SHAPES
    torch._dynamo.config.capture_scalar_outputs = True
    if device.type != "cpu":
        return torch.compile(function, dynamic=False, options={"triton.cudagraphs": cuda_graphs})
    compiled = torch.compile(function, dynamic=False)

    def frozen(*inputs):
        with torch._inductor.config.patch(ON_PROCESSORS):  # options of torch.compile are not asked in tracing
            return compiled(*inputs)

    return frozen


class ImageSampler:
    """Samples image codes of an `AutoregressiveModel`.

    The ends of rows are read and not drawn: they take no random number and have no likelihood.
    compiled: run the one-token step and the draw through torch.compile (CUDA graphs on a GPU). It costs seconds to compile
    for each shape of a batch, and is worth it from some ten thousand images on; the codes are the same, up to rounding. On a
    processor a compiled step attends as `one_query` has it.
    """

    def __init__(self, unified, compiled):
        device = unified.model.device
        self.unified = unified
        self.images = SideBySide() if compiled and device.type == "cpu" else RowAfterRow(compiled)
        self.next_logits, self.draw_codes = self._next_logits, draw_codes
        if compiled:
            self.next_logits = compile_for_inference(self._next_logits, device, cuda_graphs=True)
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
        order, groups = self.images.arranged(torch.as_tensor(prompt_of_image, device=input_ids.device))
        groups = groups[None]
        prompts = torch.stack([input_ids, attention_mask], dim=1)
        if guided:
            unconditional = torch.stack([unconditional_ids, attention_mask], dim=1)
            unconditional, row_of_prompt = unconditional.unique(dim=0, return_inverse=True)
            groups = torch.cat([groups, row_of_prompt[groups] + len(prompts)])
            prompts = torch.cat([prompts, unconditional])
        images = len(order) // groups.shape[1]
        read = num_steps - 1 + (num_steps - 1) // row_length  # codes but the last, ends of rows but the last
        logits, mask = self._read_prompts(prompts[:, 0], prompts[:, 1], groups, images, read)

        seeds = torch.as_tensor(seeds, device=input_ids.device)[order]
        steps = torch.arange(num_steps, device=input_ids.device)
        columns = torch.arange(mask.shape[1], device=input_ids.device)
        drawn, end = [], prompts.shape[2]
        for step in range(num_steps):
            if drawn:
                last_codes = drawn[-1][0]
                tokens = [last_codes.repeat(2) if guided else last_codes]
                if step % row_length == 0:
                    tokens.append(torch.full_like(tokens[0], self.unified.num_codes))
                for token in tokens:
                    end += 1
                    visible = self.images.visible(mask & (columns < end), end)
                    position = visible.sum(dim=-1)[:, 0] - 1
                    with self.images.attention(self.unified.language_model):
                        logits = self.next_logits(embeddings[token][:, None], visible, position, self.images.cache)
            drawn.append(self.draw_codes(logits, seeds, steps[step], guidance_scale, temperature))
        codes, log_probs, sampling_log_probs = map(torch.stack, zip(*drawn, strict=True))
        order = order.argsort()
        return Samples(codes.T[order], log_probs.sum(dim=0)[order], sampling_log_probs.sum(dim=0)[order])

    def _read_prompts(self, input_ids, attention_mask, groups, images, tokens):
        """Logits of the first code of all rows, and the mask (rows, positions) of what they may see once `tokens` tokens of
        an image are written; the prompts' keys and values are left in the cache.

        groups: (halves, G) prompts, each with `images` images; rows are as of `ImageCache`.
        """
        language_model = self.unified.language_model
        read = DynamicCache(config=language_model.config)
        rows = groups.repeat(1, images).flatten()
        hidden_states = language_model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids(attention_mask),
            past_key_values=read,
        ).last_hidden_state[rows, -1]
        positions = self.images.begin(read, groups, images, tokens)
        mask = attention_mask.new_ones(len(input_ids), positions)
        mask[:, : input_ids.shape[1]] = attention_mask
        mask = mask.bool().T[:, rows].T  # rows lie side by side in memory
        return self.unified.code_logits(hidden_states).float(), mask

    def _next_logits(self, inputs_embeds, attention_mask, position_ids, cache):
        """Logits (rows, V) after one more image token, (rows, 1, hidden), at `position_ids` (rows, 1); each row sees what
        `attention_mask` has of the cache, (rows, 1, 1, S), which takes its keys and values in place."""
        hidden_states = self.unified.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=cache,
        ).last_hidden_state[:, -1]
        return self.unified.code_logits(hidden_states).float()
