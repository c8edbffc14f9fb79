"""What one real optimizer step does to every example, and what the kernel says that it does, to first order in the step."""

import pandas as pd
import torch
from torch.nn.functional import logsigmoid
from torch.nn.utils import clip_grad_norm_, parameters_to_vector, vector_to_parameters

from replication.dynamics.gradients import QUANTITIES, directional_derivatives, values


def batch_loss(model, samples, codes, config):
    """The loss of post-training (paper section 3) on the frame `samples` (prompt, chosen, for DPO rejected: rows of `codes`),
    while the model is still DPO's reference."""
    prompts = samples["prompt"].tolist()
    chosen = model.image_log_probs(prompts, codes[samples["chosen"].tolist()])
    if config["method"] == "sft":
        return -chosen.mean()
    rejected = model.image_log_probs(prompts, codes[samples["rejected"].tolist()])
    change = (chosen - chosen.detach()).sum(dim=1) - (rejected - rejected.detach()).sum(dim=1)
    return -logsigmoid(config["beta"] * change).mean() - config["nll_weight"] * chosen.mean()


def take_step(optimizer, parameters, loss, max_grad_norm):
    """One step of `optimizer` on `loss`, clipped as in training, taken back: the flat vector (P,) of what it did."""
    before = parameters_to_vector(parameters.values()).detach().clone()
    optimizer.zero_grad()
    loss.backward()
    clip_grad_norm_(parameters.values(), max_grad_norm)
    optimizer.step()
    taken = parameters_to_vector(parameters.values()).detach() - before
    vector_to_parameters(before.clone(), parameters.values())
    return taken


def optimizer_steps(model, parameters, batches, codes, config):
    """The steps on the last of `batches`: a dict optimizer -> (P,), and Adam's preconditioner (P,).

    adam: AdamW as in training, its moments filled by the batches before at the same weights. sgd: a step of the same length.
    The preconditioner is 0 for parameters that no batch has moved, such as the embeddings of the words of the question.
    """
    trained = list(parameters.values())
    adam = torch.optim.AdamW(trained, lr=0.0, weight_decay=0.0)
    for samples in batches[:-1]:
        take_step(adam, parameters, batch_loss(model, samples, codes, config), config["max_grad_norm"])
    (group,) = adam.param_groups
    group["lr"] = config["learning_rate"]
    last = batches[-1]
    steps = {"adam": take_step(adam, parameters, batch_loss(model, last, codes, config), config["max_grad_norm"])}
    sgd = torch.optim.SGD(trained, lr=1.0)
    gradient = take_step(sgd, parameters, batch_loss(model, last, codes, config), config["max_grad_norm"])
    steps["sgd"] = gradient * (steps["adam"].norm() / gradient.norm())
    second = parameters_to_vector([adam.state[value]["exp_avg_sq"] for value in trained])
    rates = 1 / ((second / (1 - group["betas"][1] ** len(batches))).sqrt() + group["eps"])
    return steps, torch.where(second > 0, rates, 0.0)


def changes(model, parameters, pairs, step, scales):
    """Predicted and actual change of every quantity of every pair: a frame quantity, scale, example, predicted, actual.

    step: (P,); it is taken `scales` times as far, and taken back.
    """
    start, rows = parameters_to_vector(parameters.values()).detach().clone(), []
    for quantity in QUANTITIES:
        predicted = directional_derivatives(model, parameters, quantity, pairs, step)
        before = values(model, quantity, pairs)
        for scale in scales:
            vector_to_parameters(start + scale * step, parameters.values())
            actual = values(model, quantity, pairs) - before
            vector_to_parameters(start.clone(), parameters.values())
            found = {"predicted": (scale * predicted).numpy(), "actual": actual.numpy()}
            rows.append(pd.DataFrame({"quantity": quantity, "scale": scale, "example": range(len(pairs)), **found}))
    return pd.concat(rows, ignore_index=True)
