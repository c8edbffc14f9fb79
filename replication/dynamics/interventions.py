"""A training whose steps leave an understanding alone, to first order: does co-improvement go when its reason is taken away?

The paper's reason is that a step of the generation branch moves understanding by the kernel that both share (section 6). So the
step itself, after Adam has rescaled and mixed what the loss asked for, is projected to be orthogonal to the gradients of the
understanding of some examples: none of them changes then, but for terms of second order in the step. Other examples change less,
by as much as their gradients lie in the same span.
"""

import torch
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from transformers import TrainerCallback

from replication.corruption import named_rng
from replication.dynamics.gradients import Pairs, per_example_gradients


def without(step, gradients, products):
    """`step` (P,) less its part in the span of the rows of `gradients` (n, P), float64, which may depend on each other: what adds less
    than 1e-5 to a span is taken for rounding. products: (n, n), their inner products."""
    wanted = step.double()
    shares = torch.linalg.pinv(products, rtol=1e-10, hermitian=True) @ (gradients @ wanted)
    return (wanted - shares @ gradients).to(step.dtype)


class OrthogonalSteps(TrainerCallback):
    """Projects every step of the optimizer to be orthogonal to the gradients of the understanding of the last batches.

    model: the unified model that is trained. candidates: frame with a column prompt, one row per row of `codes` (n, T).
    config: `quantities`, names of `gradients.QUANTITIES`; `examples`, how many candidates are drawn for each step; `batches`,
    of how many steps they count: this one's, whose gradients are exact, and those before, as they were then. Before the first
    step as many are drawn. seed: names the random stream. A training with this must not go on from a checkpoint, which does
    not hold the gradients.
    """

    def __init__(self, model, candidates, codes, config, seed):
        if len(candidates) < config["examples"]:
            raise SystemExit(
                f"Steps are to be orthogonal to {config['examples']} candidates, but there are {len(candidates)}; "
                "lower post_training.orthogonal_to.examples."
            )
        self.model, self.candidates, self.codes = model, candidates, codes
        self.config, self.seed = config, seed

    def gradients(self, step):
        """The gradients (n, P), in float64, of the batch that is drawn for the step of that number, as the model is now."""
        rng = named_rng(self.seed, f"orthogonal/{step}")
        rows = rng.choice(len(self.candidates), self.config["examples"], replace=False)
        codes = torch.from_numpy(self.codes[rows]).long()
        pairs = Pairs(self.candidates["prompt"].iloc[rows].tolist(), codes, self.model.decode_images(codes))
        found = [per_example_gradients(self.model, self.trained(), name, pairs) for name in self.config["quantities"]]
        return torch.cat(found).double()

    def trained(self):
        return {name: value for name, value in self.model.model.named_parameters() if value.requires_grad}

    def remember(self, step):
        """The gradients for the step of that number, in the place of the oldest, and their products with all others."""
        number = self.config["batches"]
        gradients = self.gradients(step)
        if self.kept is None:
            self.kept = gradients.new_zeros(number, *gradients.shape)
            self.products = gradients.new_zeros(number, len(gradients), number, len(gradients))
        self.kept[step % number] = gradients
        with_all = self.kept @ gradients.T
        self.products[:, :, step % number] = with_all
        self.products[step % number] = with_all.permute(2, 0, 1)

    def on_train_begin(self, args, state, control, **kwargs):
        self.kept = None
        for step in range(1 - self.config["batches"], 0):
            self.remember(step)

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        self.remember(state.global_step)
        self.before = parameters_to_vector(self.trained().values()).detach().clone()

    def on_optimizer_step(self, args, state, control, **kwargs):
        trained = self.trained().values()
        taken = parameters_to_vector(trained).detach() - self.before
        gradients = self.kept.flatten(0, 1)
        products = self.products.flatten(2, 3).flatten(0, 1)
        vector_to_parameters(self.before + without(taken, gradients, products), trained)
