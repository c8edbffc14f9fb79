"""A unified model in miniature: two log-linear branches over a few prompts and images (paper section 6). Numpy only.

Prompts name a shape and a colour, images are two tokens of one vocabulary: the first shows a shape, the second a colour.

    generation      pi(x|y) = prod_k softmax(b + f(y, x_<k) w_g)[x_k]      the paper's product over the tokens of an image
    understanding   pi(y|x) = softmax(c + h(x) w_u)[y]                     assumption: a prompt is one token, L = 1

b and c are the logits of the pre-trained model; training moves the weights away from 0. Of the parameters (t_shared, t_g, t_u),

    w_g = sqrt(s) t_shared + sqrt(1 - s) t_g        w_u = sqrt(s) t_shared + sqrt(1 - s) t_u

so that the dial `sharing` s leaves the kernel within either branch as it is and makes the kernel between them s h f^T. Only the
generation loss is trained, so t_u gets no gradient, and w_u moves by s times what w_g moves; from 0 on, w_u = s w_g, and the t need not be kept.

The features of understanding are h = cos(angle) sum_k f_k + sin(angle) h', h' of the same parameters, as long and orthogonal
for each pair: at angle 0 both branches read the same weights alike, at 90 degrees a pair's own kernel between them is 0.

Shapes: P prompts, X images, V tokens, C = 1 + V contexts of a token (none before it, or which), D weights.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import expit, logsumexp

from replication.corruption import named_rng


@dataclass(frozen=True)
class World:
    """Prompts, images, features and the pre-trained model."""

    prompts: np.ndarray  # (P, 2) shape and colour
    images: np.ndarray  # (X, 2) tokens
    features: np.ndarray  # (P, C, V, D), f
    unrelated_features: np.ndarray  # (X, P, D), h'
    generation_logits: np.ndarray  # (P, C, V), b
    understanding_logits: np.ndarray  # (X, P), c

    @cached_property
    def matches(self):
        """How many of the two attributes of prompt y image x shows: (X, P)."""
        attributes = self.images % (self.prompts.max() + 1)
        return (attributes[:, None] == self.prompts).sum(axis=2)

    @cached_property
    def right(self):
        """Whether image x shows prompt y: (X, P); every image shows one."""
        return self.matches == 2

    @cached_property
    def aligned_features(self):
        """sum_k f_k of image x for prompt y: (X, P, D)."""
        return self.along_image(self.features).swapaxes(0, 1)

    def along_image(self, tokens):
        """Sum over the tokens of an image of any quantity of tokens (P, C, V, ...): (P, X, ...)."""
        first, second = self.images.T
        return tokens[:, 0, first] + tokens[:, 1 + first, second]

    def understanding_logits_change(self, weights, angle):
        """h(x) w at an angle in degrees: (X, P)."""
        aligned, unrelated = self.aligned_features @ weights, self.unrelated_features @ weights
        return np.cos(np.radians(angle)) * aligned + np.sin(np.radians(angle)) * unrelated


def new_world(config, seed):
    """A world of random features and a pre-trained model whose logits are the truth times a strength plus noise."""
    rng = named_rng(seed, "world")
    attributes, width = config["attributes"], config["width"]
    prompts = np.argwhere(np.ones((attributes, attributes)))
    vocabulary = attributes * config["tokens_per_attribute"]
    images = np.argwhere(np.ones((vocabulary, vocabulary)))
    features = _token_features(prompts, vocabulary, width, rng)
    world = World(prompts, images, features, np.empty(0), np.empty(0), np.empty(0))

    aligned = world.aligned_features
    other = world.along_image(_token_features(prompts, vocabulary, width, rng)).swapaxes(0, 1)
    other -= (other * aligned).sum(axis=2, keepdims=True) / (aligned**2).sum(axis=2, keepdims=True) * aligned
    other *= np.linalg.norm(aligned, axis=2, keepdims=True) / np.linalg.norm(other, axis=2, keepdims=True)

    shown = np.arange(vocabulary) % attributes
    named = prompts[:, [0] + [1] * vocabulary]  # (P, C): what the token at this place should show
    right_tokens = named[:, :, None] == shown
    noise = config["noise"] * rng.standard_normal(right_tokens.shape)
    generation = config["generation_strength"] * right_tokens + noise
    noise = config["noise"] * rng.standard_normal(world.matches.shape)
    understanding = config["understanding_strength"] * world.matches + noise
    return World(prompts, images, features, other, generation, understanding)


def _token_features(prompts, vocabulary, width, rng):
    """Unit features (P, C, V, D) of token v after context c for prompt y: the product of an embedding of each.

    Prompts that share an attribute are alike, and so are tokens that show the same and contexts of the same place.
    """
    attributes = prompts.max() + 1
    shape, colour, prompt = (rng.standard_normal((size, width)) for size in (attributes, attributes, len(prompts)))
    prompt = _unit(shape[prompts[:, 0]] + colour[prompts[:, 1]] + prompt)
    place, context = (rng.standard_normal((size, width)) for size in (2, 1 + vocabulary))
    context = _unit(place[[0] + [1] * vocabulary] + context)
    shown, token = (rng.standard_normal((size, width)) for size in (attributes, vocabulary))
    token = _unit(shown[np.arange(vocabulary) % attributes] + token)
    product = np.einsum("ya,cb,vd->ycvabd", prompt, context, token)
    return product.reshape(*product.shape[:3], -1)


def _unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _log_softmax(logits):
    """Over the last axis; scipy's own takes three times as long on arrays of this size."""
    logits = logits - logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def token_log_probs(world, weights):
    """log pi(x_k | y, x_<k): (P, C, V)."""
    return _log_softmax(world.generation_logits + world.features @ weights)


def generation_log_probs(world, weights):
    """log pi(x|y): (P, X)."""
    return world.along_image(token_log_probs(world, weights))


def understanding_log_probs(world, weights, angle, logits=None):
    """log pi(y|x), from `logits` (X, P) of a pre-trained model, the world's own by default: (X, P)."""
    logits = world.understanding_logits if logits is None else logits
    return _log_softmax(logits + world.understanding_logits_change(weights, angle))


def bayes_log_probs(generation):
    """log pi(y|x) of a branch that is the Bayes inverse of generation log pi(x|y) (P, X): (X, P).

    Its change is the paper's bridge, dU = dG - dlog pi(x), with pi(x) the mean of pi(x|y) over prompts. assumption: all
    prompts are equally likely, and stay so.
    """
    return (generation - logsumexp(generation, axis=0)).T


def residuals(world, tokens, weights):
    """Gradient with respect to the token logits of -sum weights log pi(x|y): (P, C, V), weights (P, X) of any sign.

    It is (pi_r^u - e_{xu,r}) of Propositions 1 and 2, summed over the tokens r of all post-training images.
    """
    grid = weights.reshape(len(tokens), tokens.shape[2], tokens.shape[2])  # images are ordered by their tokens
    drawn = np.concatenate([grid.sum(axis=2)[:, None], grid], axis=1)
    return drawn.sum(axis=2, keepdims=True) * np.exp(tokens) - drawn


def dpo_weights(generation, reference, pairs, beta):
    """Weights that make `residuals` the gradient of L_DPO (Proposition 2): +-beta sigma(-alpha) on chosen and rejected.

    generation, reference: log pi and log pi_ref (P, X); pairs (P, X, X): the weight of chosen (first) against rejected.
    """
    ratio = beta * (generation - reference)
    margin = ratio[:, :, None] - ratio[:, None, :]
    pull = beta * pairs * expit(-margin)
    return pull.sum(axis=2) - pull.sum(axis=1)
