"""Attention over rows that lie side by side, against torch's own."""

from types import SimpleNamespace

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from replication import image_cache
from replication.image_cache import SideBySide, SideBySideLayer
from replication.one_query import attend, side_by_side_attention

LENGTH, WRITTEN, HEAD_DIM = 4, 3, 5  # of a prompt, of an image so far, of a head


def filled_layer(generator, groups, images, heads):
    """A layer after prompts and `WRITTEN` updates, and the keys and values that each row has seen, (rows, heads, LENGTH + WRITTEN,
    HEAD_DIM); twice, so that the second begins with what the first has left."""
    layer = SideBySideLayer(WRITTEN + 1)
    for _ in range(2):
        prompt = torch.randn(2, groups.max() + 1, heads, LENGTH, HEAD_DIM, generator=generator)
        states = torch.randn(2, groups.numel() * images, heads, WRITTEN, HEAD_DIM, generator=generator)
        if not layer.is_initialized:
            layer.lazy_initialization(states[0], states[1])
        layer.begin(SimpleNamespace(keys=prompt[0], values=prompt[1]), groups)
        for position in range(WRITTEN):
            keys, values = layer.update(*states[:, :, :, position : position + 1])
    rows = [prompt[:, group] for half in groups.tolist() for _ in range(images) for group in half]
    return layer, keys, values, torch.cat([torch.stack(rows, dim=1), states], dim=3)


@pytest.mark.parametrize("groups, images", [([[0]], 1), ([[1, 0, 2]], 1), ([[1, 0], [2, 2]], 3)])
@pytest.mark.parametrize("query_heads, heads", [(4, 4), (6, 2), (1, 1)])
def test_attention_is_that_of_torch_over_what_is_visible(groups, images, query_heads, heads):
    generator = torch.Generator().manual_seed(0)
    groups = torch.tensor(groups)
    _, keys, values, seen = filled_layer(generator, groups, images, heads)
    rows = groups.numel() * images
    query = torch.randn(rows, query_heads, 1, HEAD_DIM, generator=generator)
    visible = torch.rand(rows, 1, 1, LENGTH + WRITTEN, generator=generator) < 0.6
    visible[..., -1] = True
    output, weights = attend(None, query, keys, values, visible, scaling=0.3)
    expected = scaled_dot_product_attention(query, *seen, attn_mask=visible, scale=0.3, enable_gqa=True)
    torch.testing.assert_close(output, expected.transpose(1, 2))
    assert weights is None


def test_rows_lie_side_by_side_and_nothing_is_marked_as_a_weight():
    layer, (prompt_keys, keys), (prompt_values, values), seen = filled_layer(
        torch.Generator().manual_seed(0), torch.tensor([[0, 1]]), images=2, heads=2
    )
    assert (keys[:, :, :WRITTEN] == seen[0, :, :, LENGTH:]).all() and (
        values[:, :, :WRITTEN] == seen[1, :, :, LENGTH:]
    ).all()
    for states in (prompt_keys, prompt_values):
        assert states.stride(-1) == 1
    for states in (keys, values):
        assert states.stride(0) == 1
    for states in (keys, values, layer.cumulative_length):
        assert not hasattr(states, "_dynamo_static_input_type")


@pytest.mark.parametrize(
    "prompt_of_image, order, prompts",
    [
        ([0, 0, 1, 1, 2, 2], [0, 2, 4, 1, 3, 5], [0, 1, 2]),
        ([2, 0, 0, 2], [1, 0, 2, 3], [0, 2]),
        ([1, 1, 0], [0, 1, 2], [1, 1, 0]),  # not as many of each: nothing is shared
        ([0, 0], [0, 1], [0, 0]),  # too few
    ],
)
def test_images_of_a_prompt_lie_as_far_apart_as_there_are_prompts(prompt_of_image, order, prompts, monkeypatch):
    monkeypatch.setattr(image_cache, "VECTOR", 2)
    images = torch.tensor(prompt_of_image)
    found, groups = SideBySide().arranged(images)
    assert found.tolist() == order and groups.tolist() == prompts
    assert (images[found] == groups.repeat(len(images) // len(groups))).all()


@pytest.mark.parametrize("family", ["janus"], indirect=True)
def test_a_language_model_attends_as_usual_again(model):
    config = model.language_model.config
    usual = config._attn_implementation
    with pytest.raises(KeyError), side_by_side_attention(model.language_model):
        assert config._attn_implementation == "side_by_side"
        raise KeyError
    assert config._attn_implementation == usual
