"""The training losses against references that share no code with them, and mutants that the same checks must reject."""

import copy
import math

import numpy as np
import pandas as pd
import pytest
import torch
from families import code_logits_alone
from settings import DPO, FAMILIES, SFT
from torch.nn.functional import logsigmoid

from replication import post_training, trainers
from replication.models.emu3 import Emu3Backbone
from replication.models.janus import JanusBackbone
from replication.models.showo import ShowoBackbone, ShowoModel
from replication.models.tiny import CODEBOOK_SIZE

PROMPTS = ["an image of a triangle", "a picture of a striped purple triangle"]
CODES = np.random.default_rng(0).integers(CODEBOOK_SIZE, size=(4, 36)).astype(np.int16)
TRAINING_SET = pd.DataFrame({"prompt": PROMPTS, "chosen": [0, 1], "rejected": [2, 3]})


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return request.param


def new_trainer(model, method, folder, **changes):
    policy = model.image_policy("language_model")
    config = {**{"sft": SFT, "dpo": DPO}[method], **changes}
    return post_training.new_trainer(policy, TRAINING_SET, CODES, config, 0, folder)


def trl_loss(trainer, **columns):
    """The loss of TRL on all rows as one batch, with columns of the batch replaced."""
    batch = trainer.data_collator(list(trainer.train_dataset))
    return trainer.compute_loss(trainer.model, {**batch, **columns})


def reference_log_probs(model, prompt, codes):
    """log pi of every code, written as the definition reads: float64, one image, one code at a time."""
    exact, log_probs = copy.copy(model), []
    exact.model = copy.deepcopy(model.model).double()
    codes = codes.tolist()
    for number, code in enumerate(codes):
        logits = code_logits_alone(exact.name.lower(), exact, prompt, codes, number)
        log_probs.append((logits[code] - logits.exp().sum().log()).item())
    return log_probs


def references(model):
    """Reference log-probabilities (2, 36) of the chosen and of the rejected images."""
    with torch.no_grad():
        return (
            torch.tensor([reference_log_probs(model, p, CODES[i]) for p, i in zip(PROMPTS, rows, strict=True)])
            for rows in (TRAINING_SET["chosen"], TRAINING_SET["rejected"])
        )


def sft_loss_and_reference(model, folder):
    chosen, _ = references(model)
    return trl_loss(new_trainer(model, "sft", folder)).item(), -chosen.mean().item()


def dpo_loss_and_reference(model, folder):
    """Of a policy that has moved away from its reference, or else a wrong one would not show."""
    trainer = new_trainer(model, "dpo", folder)
    reference = [log_probs.sum(dim=1) for log_probs in references(model)]
    with torch.no_grad():
        for parameter in model.language_model.parameters():
            parameter.mul_(1.2)
    chosen, rejected = references(model)
    margins = (chosen.sum(dim=1) - reference[0]) - (rejected.sum(dim=1) - reference[1])
    expected = -logsigmoid(0.1 * margins).mean() - 0.5 * chosen.mean()
    return trl_loss(trainer).item(), expected.item()


@pytest.mark.parametrize("compare", [sft_loss_and_reference, dpo_loss_and_reference])
def test_trl_loss_equals_the_plain_recomputation_in_float64(compare, model, tmp_path):
    loss, reference = compare(model, tmp_path)
    assert loss == pytest.approx(reference, rel=1e-5)


def labels_shifted_by_one(monkeypatch):
    """The off-by-one of public training code: the loss pairs every position with the code after the next."""
    sft_rows = post_training.sft_rows

    def shifted(policy, training_set, codes):
        def shift(row):
            return {"labels": row["labels"][1:] + [-100]}

        return sft_rows(policy, training_set, codes).map(shift)

    monkeypatch.setattr(post_training, "sft_rows", shifted)


def reference_replaced_by_policy(monkeypatch):
    compute_loss = trainers.ImageDPOTrainer.compute_loss

    def against_itself(trainer, model, inputs, *args, **kwargs):
        with torch.no_grad():
            chosen, rejected = trainer.compute_ref_log_probs(model, inputs)
        return compute_loss(trainer, model, {**inputs, "ref_chosen_logps": chosen, "ref_rejected_logps": rejected})

    monkeypatch.setattr(trainers.ImageDPOTrainer, "compute_loss", against_itself)


def mean_in_place_of_sum(monkeypatch):
    """beta times the difference of mean log-ratios instead of summed ones: 36 times weaker."""
    config = post_training.DPOConfig

    def averaged(**arguments):
        return config(**{**arguments, "loss_type": ["sigmoid_norm", "sft"]})

    monkeypatch.setattr(post_training, "DPOConfig", averaged)


def guided_logits_in_the_loss(monkeypatch):
    """Classifier-free guidance mixed into the logits; the last layer is linear, so its inputs are mixed here."""

    def mutate(forward):
        def guided(backbone, input_ids, attention_mask=None, position_ids=None, use_cache=False):
            pads = torch.where(input_ids < backbone.num_codes, input_ids, backbone.num_codes)
            output = forward(backbone, input_ids, attention_mask, position_ids, use_cache)
            unconditional = forward(backbone, pads, attention_mask, position_ids, use_cache).last_hidden_state
            output.last_hidden_state = unconditional + 5 * (output.last_hidden_state - unconditional)
            return output

        return guided

    for backbone in (JanusBackbone, Emu3Backbone, ShowoBackbone):
        monkeypatch.setattr(backbone, "forward", mutate(backbone.forward))


def text_embeddings_for_image_codes(monkeypatch):
    def embed(backbone, input_ids):
        table = backbone.language_model.embed_tokens
        return table(input_ids % table.num_embeddings)

    for backbone in (JanusBackbone, Emu3Backbone):
        monkeypatch.setattr(backbone, "embed", embed)
    image_ids = ShowoModel.image_ids
    monkeypatch.setattr(ShowoModel, "image_ids", lambda model, *ids: image_ids(model, *ids) % model.first_code)


@pytest.mark.parametrize(
    ("mutate", "compare"),
    [
        (labels_shifted_by_one, sft_loss_and_reference),
        (reference_replaced_by_policy, dpo_loss_and_reference),
        (mean_in_place_of_sum, dpo_loss_and_reference),
        (guided_logits_in_the_loss, sft_loss_and_reference),
        (guided_logits_in_the_loss, dpo_loss_and_reference),
        (text_embeddings_for_image_codes, sft_loss_and_reference),
        (text_embeddings_for_image_codes, dpo_loss_and_reference),
    ],
)
def test_mutants_are_caught(mutate, compare, model, tmp_path, monkeypatch):
    mutate(monkeypatch)
    loss, reference = compare(model, tmp_path)
    assert math.isfinite(loss)
    assert loss != pytest.approx(reference, rel=1e-3)  # a hundred times the tolerance of the test above


def trained_parameters(model):
    return {name: value for name, value in model.model.named_parameters() if value.requires_grad}


def test_dpo_gradient_at_the_reference_is_half_beta_times_the_difference(model, tmp_path):
    trainer = new_trainer(model, "dpo", tmp_path, nll_weight=0.0)
    loss = trl_loss(trainer)
    assert loss.item() == pytest.approx(math.log(2), abs=1e-6)
    parameters = list(trained_parameters(model).values())
    ours = torch.autograd.grad(loss, parameters)
    codes = torch.from_numpy(CODES).long()
    chosen, rejected = model.image_log_probs(PROMPTS, codes[:2]), model.image_log_probs(PROMPTS, codes[2:])
    expected = torch.autograd.grad(0.1 / 2 * (rejected - chosen).sum(dim=1).mean(), parameters)
    for gradient, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(gradient, other, atol=1e-5, rtol=1e-3)
    assert max(gradient.abs().max() for gradient in expected) > 0.01


@pytest.mark.parametrize("margin", [-30.0, -1.0, 0.0, 2.5])
def test_trl_loss_is_the_closed_form_for_hand_made_references(margin, model, tmp_path):
    trainer = new_trainer(model, "dpo", tmp_path)
    batch = trainer.data_collator(list(trainer.train_dataset))
    chosen, rejected = batch["ref_chosen_logps"], batch["ref_rejected_logps"]
    loss = trl_loss(trainer, ref_chosen_logps=chosen - margin, ref_rejected_logps=rejected)
    nll = -model.image_log_probs(PROMPTS, torch.from_numpy(CODES[:2]).long()).mean().item()
    expected = math.log1p(math.exp(-0.1 * margin)) + 0.5 * nll
    assert loss.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("method", ["sft", "dpo"])
def test_the_gradient_of_trl_equals_finite_differences(method, model, tmp_path):
    trainer = new_trainer(model, method, tmp_path)
    parameters = list(trained_parameters(model).values())
    gradients = torch.autograd.grad(trl_loss(trainer), parameters)
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        # a random direction that leans towards the gradient, or else the rounding of float32 would hide the difference
        directions = [torch.randn(g.shape, generator=generator) * g.std() + g for g in gradients]
        length = torch.sqrt(sum(direction.square().sum() for direction in directions))
        directions = [direction / length for direction in directions]
        losses = []
        with torch.no_grad():
            for step in (1e-2, -2e-2, 1e-2):  # there, to the other side, and back
                for parameter, direction in zip(parameters, directions, strict=True):
                    parameter += step * direction
                losses.append(trl_loss(trainer).item())
        slope = sum((g * direction).sum() for g, direction in zip(gradients, directions, strict=True)).item()
        assert slope > 0.1
        assert (losses[0] - losses[1]) / 2e-2 == pytest.approx(slope, rel=1e-2)
