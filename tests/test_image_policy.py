"""The generation branch as a causal language model: the loss that TRL computes is the loss of the paper."""

import pytest
import torch
from families import HEADS, LANGUAGE_MODELS, code_logits_alone, drawing_inputs
from settings import FAMILIES
from torch.nn.functional import cross_entropy, log_softmax
from trl.trainer.utils import add_fused_lm_head

from replication.models.tiny import CODEBOOK_SIZE

PROMPTS = ["an image of a triangle", "a picture of a striped purple triangle"]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture
def codes():
    return torch.randint(CODEBOOK_SIZE, (2, 36), generator=torch.Generator().manual_seed(0))


def padded_rows(policy, codes):
    """Joint ids and labels of two prompts of different lengths, padded on the right as TRL pads."""
    prompts = policy.prompt_ids(PROMPTS)
    width = max(map(len, prompts)) + codes.shape[1]
    input_ids, labels = torch.zeros(2, width, dtype=torch.long), torch.full((2, width), -100)
    for row, (prompt, image) in enumerate(zip(prompts, codes, strict=True)):
        end = len(prompt) + len(image)
        input_ids[row, :end] = torch.tensor(prompt + image.tolist())
        labels[row, len(prompt) : end] = image
    lengths = torch.tensor([len(prompt) + codes.shape[1] for prompt in prompts])
    return input_ids, labels, (torch.arange(width) < lengths[:, None]).long()


def test_joint_vocabulary_offsets_text(model, family):
    policy = model.image_policy("language_model")
    text = [drawing_inputs(family, model, [prompt])[0][0].tolist() for prompt in PROMPTS]
    assert policy.prompt_ids(PROMPTS) == [[model.num_codes + i for i in ids] for ids in text]


def test_policy_and_backbone_agree_and_the_last_of_the_prompt_predicts_code_1(model, family, codes):
    policy = model.image_policy("language_model")
    input_ids, labels, mask = padded_rows(policy, codes)
    logits = policy(input_ids, attention_mask=mask).logits[:, :-1]
    log_probs = log_softmax(logits, dim=-1).gather(2, labels[:, 1:].clamp(min=0)[..., None])[..., 0]
    ours = torch.stack([row[kept] for row, kept in zip(log_probs, labels[:, 1:] >= 0, strict=True)])
    torch.testing.assert_close(ours, model.image_log_probs(PROMPTS, codes), atol=1e-4, rtol=1e-4)

    model.model.double()
    for number in (0, 5, 6, 35):  # the first code, the last of a row, the first of the next, the last of all
        plain = code_logits_alone(family, model, PROMPTS[0], codes[0].tolist(), number)
        plain = log_softmax(plain, dim=-1)[codes[0, number]]
        torch.testing.assert_close(ours[0, number].double(), plain, atol=1e-4, rtol=1e-4)


def test_rows_padded_on_the_left_have_the_same_logits(model, codes):
    policy = model.image_policy("language_model")
    input_ids, _, mask = padded_rows(policy, codes)
    lengths = mask.sum(dim=1).tolist()
    moved = [
        torch.stack([row.roll(-length) for row, length in zip(x, lengths, strict=True)]) for x in (input_ids, mask)
    ]
    positions = (moved[1].cumsum(dim=1) - 1).clamp(min=0)
    right = policy(input_ids, attention_mask=mask).logits
    left = policy(moved[0], attention_mask=moved[1], position_ids=positions).logits
    for row, length in enumerate(lengths):
        torch.testing.assert_close(left[row, -length:], right[row, :length], atol=1e-4, rtol=1e-4)


def test_trl_head_equals_plain_cross_entropy_and_every_code_gets_a_gradient(model, codes):
    policy = model.image_policy("language_model")
    input_ids, labels, mask = padded_rows(policy, codes)
    reference = policy(input_ids, attention_mask=mask).logits.detach().requires_grad_()
    expected = cross_entropy(reference[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="sum")
    (gradient,) = torch.autograd.grad(expected, reference)
    assert (gradient.abs().sum(dim=-1) > 0).sum() == 2 * 36  # one position for every code, nothing for the prompt

    add_fused_lm_head(policy)
    log_probs = policy(input_ids, attention_mask=mask, labels=labels, fused_lm_head=True).log_probs
    torch.testing.assert_close(-log_probs.sum(), expected, atol=1e-2, rtol=1e-5)
    torch.testing.assert_close(
        log_probs.sum(dim=1), model.image_log_probs(PROMPTS, codes).sum(dim=1), atol=1e-3, rtol=1e-5
    )


def test_only_the_trained_modules_get_gradients(model, family, codes):
    policy = model.image_policy("language_model")
    input_ids, labels, mask = padded_rows(policy, codes)
    logits = policy(input_ids, attention_mask=mask).logits[:, :-1]
    cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten()).backward()
    for name, parameter in model.model.named_parameters():
        if name.startswith(f"{LANGUAGE_MODELS[family]}."):
            assert parameter.grad is not None and parameter.grad.abs().max() > 0, name
        else:
            assert parameter.grad is None and not parameter.requires_grad, name


def test_trained_modules_is_a_pattern(model, family):
    policy = model.image_policy(r"generation_head|language_model\.layers\.3")
    trained = {name for name, parameter in policy.named_parameters() if parameter.requires_grad}
    assert f"backbone.generation_head.{HEADS[family].rpartition('.')[2]}.weight" in trained
    assert all(name.startswith(("backbone.generation_head", "backbone.language_model.layers.3")) for name in trained)
    with pytest.raises(SystemExit, match="matches no parameter"):
        model.image_policy("vision_tower")
