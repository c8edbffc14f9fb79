"""What Propositions 1 and 2 (paper section 6) predict for one step of gradient descent on the generation loss.

The propositions sum over one post-training pair; here that sum is inside `residuals`, for SFT and, with the signed weights
of `dpo_weights`, for DPO. K is the kernel of the branches: f f^T within generation and s h f^T from generation to
understanding; it is applied as a product with h or f and never formed.
"""

import numpy as np

from replication.dynamics.branches import bayes_log_probs


def generation_change(world, tokens, residuals, rate):
    """dG(x0|Y0) of the propositions, without O(eta^2): (P, X).

    -eta sum_k sum_r (e_{x0,k} - pi_k^0)^T K_{k,r}(Y0,Yu) (pi_r^u - e_{xu,r})
    """
    logits = -rate * (world.features @ _pulled_back(world, residuals))
    return world.along_image(logits - (np.exp(tokens) * logits).sum(axis=2, keepdims=True))


def stated_understanding_change(generation_change, generation):
    """dU(y0|X0) as the propositions state it: (X, P), from dG (P, X) and log pi(x|y) (P, X).

    sum_{yi != y0} w(yi|x0) [dG(x0|Y0) - dG(x0|Yi)]     w(y|x0) = pi(x0|y) / sum_y' pi(x0|y')

    Nothing in it belongs to the understanding branch: it is the change of the Bayes inverse of generation. assumption: all
    prompts are equally likely, and stay so, which w implies and the paper does not say.
    """
    posterior = np.exp(bayes_log_probs(generation))
    return generation_change.T - (posterior * generation_change.T).sum(axis=1, keepdims=True)


def branch_understanding_change(world, understanding, residuals, rate, sharing, angle):
    """dU(y0|X0) of the understanding branch itself: (X, P), from its log pi(y|x) (X, P); not in the paper.

    -eta sum_r (e_{y0} - pi(.|x0))^T s K_r(X0,Yu) (pi_r^u - e_{xu,r}),  K_r(X0,Yu) = h(x0) f(Yu, x_<r)^T
    """
    logits = -rate * sharing * world.understanding_logits_change(_pulled_back(world, residuals), angle)
    return logits - (np.exp(understanding) * logits).sum(axis=1, keepdims=True)


def _pulled_back(world, residuals):
    """f^T (pi - e): the gradient with respect to the weights of generation, (D,)."""
    return np.tensordot(residuals, world.features, axes=3)
