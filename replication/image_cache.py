"""Keys and values of the images that a sampler is drawing: how they lie in memory, and what of them a step reads."""

from contextlib import nullcontext

import torch
from transformers import Cache
from transformers.cache_utils import StaticLayer

from replication.one_query import laid_out, side_by_side_attention

CACHE_MULTIPLE = 16  # lengths of the cache, so that batches with other prompts find it (and its compiled step) again
CACHE_PARTS = 4  # a compiled step on a GPU reads those written to: more of them read less, but each is compiled
VECTOR = 16  # numbers that a processor handles at once


def cache_length(tokens):
    """`tokens`, rounded up to a length that a cache has."""
    return -(-tokens // CACHE_MULTIPLE) * CACHE_MULTIPLE


class WrittenLayer(StaticLayer):
    """A layer of a static cache whose first `read` positions are all that a step reads: attention over what is not yet written
    would be paid for and masked."""

    read = None

    def begin(self, prompt, groups):
        """Empty the layer but for the keys and values of the prompt of each row."""
        rows, length = groups.repeat(1, len(self.keys) // groups.numel()).flatten(), prompt.keys.shape[2]
        self.cumulative_length.fill_(length)
        self.keys[:, :, :length], self.values[:, :, :length] = prompt.keys[rows], prompt.values[rows]

    def update(self, key_states, value_states, *args, **kwargs):
        keys, values = super().update(key_states, value_states, *args, **kwargs)
        return keys[:, :, : self.read], values[:, :, : self.read]


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

    def begin(self, prompt, groups):
        """Empty the layer for images of the prompts whose keys and values `prompt` has, (P, heads, L, head_dim)."""
        self.cumulative_length.zero_()
        self.prompt_keys = laid_out(prompt.keys[groups].permute(3, 2, 4, 0, 1))  # (L, H', D, halves, G)
        self.prompt_values = laid_out(prompt.values[groups].permute(2, 4, 3, 0, 1))  # (H', D, L, halves, G)
        torch._dynamo.mark_dynamic(self.prompt_keys, 0)
        torch._dynamo.mark_dynamic(self.prompt_values, 2)

    def update(self, key_states, value_states, *args, **kwargs):
        keys, values = super().update(key_states, value_states, *args, **kwargs)
        return (self.prompt_keys, keys), (self.prompt_values, values)


class ImageCache:
    """One cache, kept and used again for batches of the same shape.

    Its rows are halves (with guidance the unconditional one is the second), of each half the first images of all groups, then
    the second ones, and so on. `groups`, (halves, G), names the prompt of each.
    """

    cache = None

    def _begin(self, layer_class, prompts, groups, images, width):
        """Empty `cache`, of `width` positions, for images of the groups' prompts; `prompts` is the cache that has read those."""
        rows = groups.numel() * images
        if self.cache is None or self.cache.layers[0].keys.shape[::2] != (rows, width):
            self.cache = Cache(layers=[layer_class(width) for _ in prompts.layers])
            keys = prompts.layers[0].keys
            self.cache.early_initialization(rows, keys.shape[1], keys.shape[3], keys.dtype, keys.device)
        for layer, prompt in zip(self.cache.layers, prompts.layers, strict=True):
            layer.begin(prompt, groups)


class RowAfterRow(ImageCache):
    """As torch's own attention has it: every row begins with its prompt. A step reads as many multiples of `CACHE_MULTIPLE` as
    are written, or, where each is compiled (`compiled`), of a part of the cache."""

    def __init__(self, compiled):
        self.compiled = compiled

    def arranged(self, prompt_of_image):
        """An order of images, (B,), and the prompts of groups, (G,)."""
        return torch.arange(len(prompt_of_image), device=prompt_of_image.device), prompt_of_image

    def begin(self, prompts, groups, images, tokens):
        """Begin `images` of each group, of at most `tokens` tokens; returns how many positions a mask over all has."""
        positions = cache_length(prompts.get_seq_length() + tokens)
        self._begin(WrittenLayer, prompts, groups, images, positions)
        self.part = cache_length(-(-positions // CACHE_PARTS)) if self.compiled else CACHE_MULTIPLE
        return positions

    def visible(self, mask, end):
        """Of a mask (rows, positions) what a step is given that writes the position before `end`: (rows, 1, 1, S)."""
        read = min(-(-end // self.part) * self.part, mask.shape[1])
        for layer in self.cache.layers:
            layer.read = read
        return mask[:, None, None, :read]

    def attention(self, language_model):
        """What a step runs in."""
        return nullcontext()


class SideBySide(ImageCache):
    """As `one_query` has it, for steps that are compiled on a processor: methods as of `RowAfterRow`. What is written of a prompt
    lies there once, and a step of every length is the same."""

    def arranged(self, prompt_of_image):
        """Images of a prompt lie G apart; each is a group by itself where prompts have not the same number of images, or are
        too few to fill a vector."""
        prompts, counts = prompt_of_image.unique(return_counts=True)
        if len(prompts) >= VECTOR and (counts == counts[0]).all():
            return prompt_of_image.argsort(stable=True).view(len(prompts), -1).T.flatten(), prompts
        return torch.arange(len(prompt_of_image)), prompt_of_image

    def begin(self, prompts, groups, images, tokens):
        self._begin(SideBySideLayer, prompts, groups, images, tokens)
        self.least = prompts.get_seq_length() + 2  # of one position of images a compiler would make another step
        return prompts.get_seq_length() + tokens

    def visible(self, mask, end):
        visible = mask[:, None, None, : max(end, self.least)]
        torch._dynamo.mark_dynamic(visible, 3)
        return visible

    def attention(self, language_model):
        return side_by_side_attention(language_model)
