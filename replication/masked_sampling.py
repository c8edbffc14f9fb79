"""Iterative parallel decoding of image codes (MaskGIT, arXiv 2202.04200; Show-o, arXiv 2408.12528), one random stream per image.

All codes begin hidden. In every step each hidden code is drawn from its own distribution given those that are seen, and the
most confident draws stay, as many as the cosine schedule says. So an image comes with an order: the step of each of its codes.
"""

import math
from typing import NamedTuple

import torch
from torch.nn.functional import log_softmax
from transformers import DynamicCache

from replication.sampling import gumbel_noise, position_ids


class ParallelSamples(NamedTuple):
    """Drawn images.

    codes: (B, T) int64. order: (B, T), the step in which each code was drawn.
    log_probs: (B,) log-probability of the codes under the model itself, without guidance and at temperature 1, each given what
        was seen when it was drawn: log pi(x | y) of this order.
    """

    codes: torch.Tensor
    order: torch.Tensor
    log_probs: torch.Tensor


def hidden_counts(number, steps):
    """How many of `number` codes are hidden before each of `steps` steps, and none at the end: the cosine schedule.

    Every step draws at least one. (The public code rounds in float32, and so hides one code less after two thirds of some
    schedules; not in 50 steps.) Raises ValueError when there are more steps than codes.
    """
    if not 1 <= steps <= number:
        raise ValueError(f"An image of {number} codes is drawn in 1 to {number} steps, not in {steps}.")
    counts = [number]
    for step in range(1, steps):
        counts.append(min(counts[-1] - 1, int(number * math.cos(math.pi / 2 * step / steps))))
    return [*counts, 0]


def random_orders(seeds, number, steps):
    """(B, number) the step of each code when it does not depend on the image: that of the schedule, at random."""
    ranks = gumbel_noise(seeds, torch.arange(number, device=seeds.device)).argsort(dim=1, stable=True).argsort(dim=1)
    drawn = number - torch.tensor(hidden_counts(number, steps)[1:-1], device=seeds.device, dtype=torch.long)
    return torch.bucketize(ranks, drawn, right=True)


def most_confident(confidence, number):
    """(B, T) bool: the `number` highest of each row."""
    chosen = torch.zeros_like(confidence, dtype=torch.bool)
    return chosen.scatter(1, confidence.topk(number, dim=1).indices, True)


@torch.no_grad()
def sample_in_parallel(
    unified, input_ids, attention_mask, prompt_of_image, seeds, guidance_scale, temperature
) -> ParallelSamples:
    """Sample one image of a `ShowoModel` per seed.

    input_ids, attention_mask: (P, L), left-padded requests. Every different one is read once, however many images are drawn.
    prompt_of_image: (B,) row of the request of each image. seeds: B integers; the image of a seed does not depend on the
        other images of the batch.
    guidance_scale: g in logits = unconditional + g (conditional - unconditional); 1 leaves the unconditional half out. The
        public code's scale is g - 1.
    temperature: > 0, of the codes; the confidence is the log-probability at temperature 1, plus noise of `unified.choice_noise`
        times this scale that falls from step to step as in the public code, where the factors 1 - step / steps multiply.

    Raises ValueError for a temperature that is not positive.
    """
    if temperature <= 0:
        raise ValueError(
            f"The sampling temperature must be positive, not {temperature}; use a small one for greedy images."
        )
    number, num_codes, steps = unified.codes_per_image, unified.num_codes, unified.decoding_steps
    counts, guided = hidden_counts(number, steps), guidance_scale != 1
    rows = torch.as_tensor(prompt_of_image, device=input_ids.device)
    if guided:  # padding is never seen, so one unconditional request stands for all
        rows = torch.cat([rows, torch.full_like(rows, len(input_ids))])
        input_ids = torch.cat([input_ids, unified.unconditional_ids(input_ids[:1])])
        attention_mask = torch.cat([attention_mask, attention_mask[:1]])
    states = CachedReader(unified, input_ids, attention_mask, rows)
    seeds = torch.as_tensor(seeds, device=input_ids.device)
    codes = torch.full((len(seeds), number), num_codes, device=input_ids.device)
    order, log_probs = torch.full_like(codes, steps), seeds.new_zeros(len(seeds), dtype=torch.float32)
    choice = unified.choice_noise * temperature
    for step in range(steps):
        places = (codes == num_codes).long().argsort(dim=1, descending=True, stable=True)[:, : counts[step]]
        read, asked = (values.repeat(2, 1) if guided else values for values in (codes, places))
        mixed = own = unified.code_logits(states(read).take_along_dim(asked[..., None], dim=1)).float()
        if guided:
            own, unconditional = own.chunk(2)
            mixed = unconditional + guidance_scale * (own - unconditional)
        choice *= 1 - (step + 1) / steps
        # A step has one random number for each place, then one for each of its codes; only those of hidden places are made.
        first = step * number * (num_codes + 1)
        of_codes = first + number + places[..., None] * num_codes + torch.arange(num_codes, device=places.device)
        drawn = (mixed / temperature + gumbel_noise(seeds, of_codes.flatten(1)).view_as(mixed)).argmax(dim=-1)
        confidence = log_softmax(mixed, dim=-1).gather(2, drawn[..., None])[..., 0]
        confidence = confidence + choice * gumbel_noise(seeds, first + places)
        kept = most_confident(confidence, counts[step] - counts[step + 1])
        own = log_softmax(own, dim=-1).gather(2, drawn[..., None])[..., 0]
        log_probs = log_probs + (own * kept).sum(dim=1)
        codes = codes.scatter(1, places, drawn.where(kept, num_codes))
        order = order.scatter(1, places, torch.full_like(places, step).where(kept, steps))
    return ParallelSamples(codes, order, log_probs)


class CachedReader:
    """Calls with codes (R, T) give their last hidden states (R, T, hidden) after requests that were read once.

    unified: a `ShowoModel`; input_ids, attention_mask (P, L): left-padded requests; rows (R,): the request of each image.
    """

    def __init__(self, unified, input_ids, attention_mask, rows):
        self.unified, self.number = unified, unified.codes_per_image + 2
        self.start = input_ids[rows, -1:]  # sees the codes, so it is read with them
        input_ids, attention_mask = input_ids[:, :-1], attention_mask[:, :-1]
        real = unified.is_seen(input_ids, attention_mask)
        self.cache = DynamicCache(config=unified.language_model.config)
        unified.read(input_ids, attention_mask, past_key_values=self.cache, use_cache=True)
        self.cache.batch_select_indices(rows)
        real = torch.cat([real[rows], real.new_ones(len(rows), self.number)], dim=1)
        self.positions = position_ids(real)[:, -self.number :]
        self.seen = real[:, None, None, :].expand(-1, 1, self.number, -1)

    def __call__(self, codes):
        states = self.unified.language_model(
            input_ids=self.unified.image_ids(self.start, codes),
            attention_mask=self.seen,
            position_ids=self.positions,
            past_key_values=self.cache,
            use_cache=True,
        ).last_hidden_state
        self.cache.crop(-self.number)
        return states[:, 1:-1]
