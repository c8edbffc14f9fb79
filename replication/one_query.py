"""Attention of one new token per row, written so that a compiler makes it fast on a processor.

torch's own attention goes from row to row and from head to head, which with one query each is more bookkeeping than arithmetic.
Here the rows of a batch lie side by side in memory, so that all arithmetic runs over many rows at once.
"""

from contextlib import contextmanager

import torch
from transformers import AttentionInterface
from transformers.cache_utils import StaticLayer

VECTOR = 16  # numbers that a processor handles at once


class SideBySideLayer(StaticLayer):
    """A layer of a static cache of images, (rows, heads, length, head_dim) as all are; in memory, keys lie as (length, heads,
    head_dim, rows) and values as (heads, head_dim, length, rows). Those of prompts are apart, once for all images of a prompt.

    Its tensors are copies of a `StaticLayer`'s, which are marked as never to be replaced: a step whose weights are frozen in
    would take those for weights, and go on writing to them when there is another cache.
    """

    def lazy_initialization(self, key_states, value_states):
        super().lazy_initialization(key_states, value_states)
        self.cumulative_length = self.cumulative_length.clone()
        self.keys = laid_out(self.keys.permute(2, 1, 3, 0)).permute(3, 1, 0, 2)
        self.values = laid_out(self.values.permute(1, 3, 2, 0)).permute(3, 0, 2, 1)

    def begin(self, prompt, prompt_of_group):
        """Empty the layer for images of the prompts `prompt_of_group`, (halves, G), whose keys and values `prompt` has, (P, heads,
        L, head_dim). Rows are halves, then images of a prompt, then groups."""
        self.cumulative_length.zero_()
        self.prompt_keys = laid_out(prompt.keys[prompt_of_group].permute(3, 2, 4, 0, 1))  # (L, H', D, halves, G)
        self.prompt_values = laid_out(prompt.values[prompt_of_group].permute(2, 4, 3, 0, 1))  # (H', D, L, halves, G)
        torch._dynamo.mark_dynamic(self.prompt_keys, 0)
        torch._dynamo.mark_dynamic(self.prompt_values, 2)

    def update(self, key_states, value_states, *args, **kwargs):
        keys, values = super().update(key_states, value_states, *args, **kwargs)
        return (self.prompt_keys, keys), (self.prompt_values, values)


def grouped(prompt_of_image):
    """An order of images in which those of a prompt lie G apart, and the prompt of each of G groups. Each image is a group where
    prompts have not the same number of images, or are too few to fill a vector."""
    prompts, counts = prompt_of_image.unique(return_counts=True)
    if len(prompts) >= VECTOR and (counts == counts[0]).all():
        return prompt_of_image.argsort(stable=True).view(len(prompts), -1).T.flatten(), prompts
    return torch.arange(len(prompt_of_image)), prompt_of_image


def laid_out(states):
    """A copy in which the last dimension lies side by side, then the one before."""
    return states.clone(memory_format=torch.contiguous_format)


def computed_once(result):
    """`result` of arithmetic. A compiler stores it, as it may be read in strides, and does not compute it anew for each use."""
    return result.as_strided(result.shape, result.stride())


def attend(module, query, key, value, attention_mask, scaling, **kwargs):
    """Attention of one query per row and head over L positions of a prompt and S of an image, as transformers calls it.

    query: (R, H, 1, D). key, value: as of `SideBySideLayer.update`; H / H' heads of queries share one of keys.
    attention_mask: (R, 1, 1, L + S) bool, what each row sees. Returns (R, 1, H, D), and None for the weights.
    """
    (prompt_key, key), (prompt_value, value) = key, value
    length = prompt_key.shape[0]
    written = attention_mask.shape[3] - length
    rows = prompt_key.shape[3], -1, prompt_key.shape[4]  # halves, images of a prompt, groups
    query = computed_once(laid_out((query[:, :, 0].float() * scaling).permute(1, 2, 0)))
    query = query.unflatten(0, (key.shape[1], -1))  # (H', H / H', D, R)
    key = key[:, :, :written].permute(2, 1, 3, 0)  # (S, H', D, R)
    value = value[:, :, :written].permute(1, 3, 2, 0)  # (H', D, S, R)

    of_prompt = (prompt_key[:, :, None, :, :, None] * query.unflatten(3, rows)).sum(dim=3).flatten(3)
    of_image = (key[:, :, None] * query).sum(dim=3)
    scores = torch.cat([of_prompt, of_image])  # (L + S, H', H / H', R)
    scores = scores.masked_fill(~attention_mask.permute(3, 1, 2, 0), float("-inf"))
    weights = (scores - scores.amax(dim=0)).exp()

    of_prompt, of_image = weights.permute(1, 2, 0, 3)[:, :, None].split([length, written], dim=3)
    of_prompt = (of_prompt.unflatten(4, rows) * prompt_value[:, None, :, :, :, None]).sum(dim=3).flatten(3)
    of_image = (of_image * value[:, None]).sum(dim=3)
    output = (of_prompt + of_image) / weights.sum(dim=0)[:, :, None]  # (H', H / H', D, R)
    output = computed_once(output.to(value.dtype))
    return output.flatten(0, 1).permute(2, 0, 1)[:, None], None


AttentionInterface.register("side_by_side", attend)


@contextmanager
def side_by_side_attention(language_model):
    """`language_model` attends by `attend`: it reads one token per row, and its cache is of `SideBySideLayer`s."""
    config = language_model.config
    usual, config._attn_implementation = config._attn_implementation, "side_by_side"
    try:
        yield
    finally:
        config._attn_implementation = usual
