"""Attention of one new token per row, written so that a compiler makes it fast on a processor.

torch's own attention goes from row to row and from head to head, which with one query each is more bookkeeping than arithmetic.
Here the rows of a batch lie side by side in memory, so that all arithmetic runs over many rows at once.
"""

from contextlib import contextmanager

import torch
from transformers import AttentionInterface


def laid_out(states):
    """A copy in which the last dimension lies side by side, then the one before."""
    return states.clone(memory_format=torch.contiguous_format)


def computed_once(result):
    """`result` of arithmetic. A compiler stores it, as it may be read in strides, and does not compute it anew for each use."""
    return result.as_strided(result.shape, result.stride())


def attend(module, query, key, value, attention_mask, scaling, **kwargs):
    """Attention of one query per row and head over L positions of a prompt and S of an image, as transformers calls it.

    query: (R, H, 1, D). key, value: as of `SideBySideLayer.update` (`image_cache`); H / H' heads of queries share one of keys.
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
    """`language_model` attends by `attend`: it reads one token per row, and its cache is `SideBySide`."""
    config = language_model.config
    usual, config._attn_implementation = config._attn_implementation, "side_by_side"
    try:
        yield
    finally:
        config._attn_implementation = usual
