"""Derivatives of what a unified model says of an example, with respect to the parameters that post-training trains.

`parameters` is a dict name -> parameter of `trained_parameters`; flat vectors hold them one after the other, in its order.
"""

import re
from dataclasses import dataclass

import numpy as np
import torch
from torch.func import functional_call, jvp
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import parameters_to_vector
from tqdm import tqdm


@dataclass(frozen=True)
class Pairs:
    """Prompts and images that go with them: codes (n, T), pixels (n, H, W, 3)."""

    prompts: list
    codes: torch.Tensor
    images: np.ndarray

    def __len__(self):
        return len(self.prompts)

    def rows(self, start, stop):
        return Pairs(self.prompts[start:stop], self.codes[start:stop], self.images[start:stop])

    def with_prompts(self, prompts):
        return Pairs(list(prompts), self.codes, self.images)


# What is differentiated: the paper's pi(x | y), its understanding in theory pi(y | x), and in practice, the verdict (section 6).
QUANTITIES = {
    "generation": lambda model, pairs: model.image_log_probs(pairs.prompts, pairs.codes).sum(dim=1),
    "caption": lambda model, pairs: model.prompt_log_probs(pairs.images, pairs.prompts),
    "verdict": lambda model, pairs: model.alignment_logits(pairs.images, pairs.prompts),
}


LAYER = re.compile(r"layers\.(\d+)\.")
KINDS = {"attention": "self_attn", "mlp": "mlp", "norms": "norm"}  # kinds of parameters, and how their names tell


class Call(torch.nn.Module):
    """Calls functions of a module as its forward pass, so that torch.func can put other parameters in their place."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, function):
        return function()


def trained_parameters(model, trained_modules):
    """The parameters that post-training trains (paper section 3), name -> parameter; all others are frozen."""
    model.image_policy(trained_modules)
    return {name: value for name, value in model.model.named_parameters() if value.requires_grad}


def parts_of(parameters):
    """The parts of a language model: a dict part -> numbers of its parameters.

    Parts are "all", each layer with what comes before and after them, the kinds of parameters inside, and "last layer", the
    last one with the norm after it.
    """
    parts, last = {}, max(int(number) for name in parameters for number in LAYER.findall(name))
    for number, name in enumerate(parameters):
        layer = LAYER.search(name)
        place = f"layer {layer[1]}" if layer else "embedding" if "embed" in name else "final norm"
        kinds = [kind for kind, text in KINDS.items() if text in name][:1]
        for part in ("all", place, *kinds, *["last layer"] * (place in (f"layer {last}", "final norm"))):
            parts.setdefault(part, []).append(number)
    return parts


def sizes_of(parameters):
    """Numbers of elements of named parameters."""
    return [value.numel() for value in parameters.values()]


def values(model, quantity, pairs):
    """`quantity` of every pair, (n,), without gradient."""
    with torch.no_grad():
        return QUANTITIES[quantity](model, pairs)


def per_example_gradients(model, parameters, quantity, pairs):
    """The gradient of `quantity` of each pair, (n, P): one backward pass each."""
    rows = next(iter(parameters.values())).new_empty(len(pairs), sum(sizes_of(parameters)))
    for index in tqdm(range(len(pairs)), desc=f"gradients of {quantity}", leave=False):
        value = QUANTITIES[quantity](model, pairs.rows(index, index + 1)).sum()
        gradients = torch.autograd.grad(value, list(parameters.values()), materialize_grads=True)
        rows[index] = parameters_to_vector(gradients)
    return rows


def directional_derivatives(model, parameters, quantity, pairs, direction):
    """How fast `quantity` of each pair changes along `direction` (P,): (n,), one Jacobian-vector product for all pairs.

    This is a row of kernel times residuals, and takes the memory of a forward pass where gradients take (n, P).
    """
    names = [f"module.{name}" for name in parameters]
    tangents = direction.split(sizes_of(parameters))
    tangents = [part.view_as(value) for part, value in zip(tangents, parameters.values(), strict=True)]
    primals = [value.detach() for value in parameters.values()]
    call = Call(model.model)

    def at(*parts):
        replaced = dict(zip(names, parts, strict=True))
        return functional_call(call, replaced, (lambda: QUANTITIES[quantity](model, pairs),))

    with sdpa_kernel(SDPBackend.MATH):  # the fused attentions have no forward derivative
        return jvp(at, tuple(primals), tuple(tangents))[1].detach()
