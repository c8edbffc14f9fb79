"""Batched autoregressive sampling of image codes with classifier-free guidance and one random stream per image.

`JanusForConditionalGeneration.generate` draws all images of a batch from one global stream, cannot sample without guidance and
does not return log-probabilities, hence this loop over the same modules.
"""

import hashlib
from typing import NamedTuple

import torch
from torch.nn.functional import log_softmax
from transformers import DynamicCache


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


def gumbel_noise(generators, size):
    """(B, size) standard Gumbel noise, row i from `generators[i]` alone; always drawn on the CPU, the same on every device.

    The largest of logits + noise is a draw from softmax(logits). Unlike the inverse of the cumulative distribution, it is
    indifferent to rounding errors that accumulate over the codebook, so an image hardly ever depends on its batch.
    """
    uniform = torch.stack([torch.rand(size, generator=generator, dtype=torch.float64) for generator in generators])
    return -torch.log(-torch.log(uniform.clamp(min=torch.finfo(torch.float64).tiny))).float()


@torch.no_grad()
def sample_codes(
    model, input_ids, unconditional_ids, attention_mask, prompt_of_image, seeds, guidance_scale, temperature
):
    """Sample one image per seed.

    model: JanusForConditionalGeneration.
    input_ids, unconditional_ids, attention_mask: (P, L), left padded, ending in begin-of-image. Every prompt is processed
        once, however many images are drawn from it.
    prompt_of_image: (B,) row of the prompt of each image. seeds: B integers; the image of a seed does not depend on the
        other images of the batch.
    guidance_scale: g in logits = unconditional + g (conditional - unconditional). 1 is plain sampling and leaves the
        unconditional half out. temperature: > 0.

    Returns `Samples`. Raises ValueError for a temperature that is not positive.
    """
    if temperature <= 0:
        raise ValueError(
            f"The sampling temperature must be positive, not {temperature}; use a small one for greedy images."
        )
    janus, guided = model.model, guidance_scale != 1
    device = input_ids.device
    image_embeddings = model.prepare_embeddings_for_image_generation(
        torch.arange(janus.config.vq_config.num_embeddings, device=device)
    )
    rows = torch.as_tensor(prompt_of_image, device=device)
    if guided:
        rows = torch.cat([rows, rows + len(input_ids)])
        input_ids = torch.cat([input_ids, unconditional_ids])
        attention_mask = attention_mask.repeat(2, 1)

    cache = DynamicCache(config=janus.language_model.config)
    hidden_states = janus.language_model(
        input_ids=input_ids,
        attention_mask=attention_mask,
        position_ids=position_ids(attention_mask),
        past_key_values=cache,
    ).last_hidden_state[rows, -1]
    cache.batch_select_indices(rows)
    attention_mask = attention_mask[rows]

    generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
    codes, log_probs, sampling_log_probs = [], 0.0, 0.0
    for _ in range(janus.config.vision_config.num_image_tokens):
        if codes:
            embeddings = image_embeddings[codes[-1].repeat(2) if guided else codes[-1]]
            attention_mask = torch.cat([attention_mask, attention_mask.new_ones(len(rows), 1)], dim=1)
            hidden_states = janus.language_model(
                inputs_embeds=embeddings[:, None],
                attention_mask=attention_mask,
                position_ids=attention_mask.sum(dim=-1, keepdim=True) - 1,
                past_key_values=cache,
            ).last_hidden_state[:, -1]
        logits = janus.generation_head(hidden_states).float()
        mixed = logits
        if guided:
            logits, unconditional = logits.chunk(2)
            mixed = unconditional + guidance_scale * (logits - unconditional)
        mixed = mixed / temperature
        code = (mixed + gumbel_noise(generators, mixed.shape[1]).to(device)).argmax(dim=-1)
        codes.append(code)
        log_probs = log_probs + log_softmax(logits, dim=-1).gather(1, code[:, None])[:, 0]
        sampling_log_probs = sampling_log_probs + log_softmax(mixed, dim=-1).gather(1, code[:, None])[:, 0]
    return Samples(torch.stack(codes, dim=1), log_probs, sampling_log_probs)
