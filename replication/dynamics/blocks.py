"""Blocks of the empirical neural tangent kernel: inner products of per-example gradients, exact and estimated.

The paper's K(Y_0, Y_u) between logits, contracted with the residuals on both sides, is the inner product of the gradients of
log-probabilities (paper section 6). It is what one example learns from another, so it is measured in this form.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch


@dataclass(frozen=True)
class Block:
    """Inner products of two sets of gradients, parameter by parameter, as they add up over any part of the model.

    inner: (parameters, n, m), or (parameters, n) where each left gradient meets the right one of the same example.
    left, right: squared norms (parameters, n) and (parameters, m).
    """

    inner: torch.Tensor
    left: torch.Tensor
    right: torch.Tensor

    def kernel(self, part):
        """Inner products over the parameters numbered `part`."""
        return self.inner[part].sum(dim=0)

    def norms(self, part):
        return self.left[part].sum(dim=0).sqrt(), self.right[part].sum(dim=0).sqrt()

    def cosines(self, part):
        """Cosines over the parameters numbered `part`; 0 where a gradient is 0."""
        left, right = self.norms(part)
        product = left * right if self.inner.ndim == 2 else left[:, None] * right
        return torch.where(product > 0, self.kernel(part) / product, 0.0)


def block_of(left, right, sizes, paired=False):
    """The `Block` of gradients (n, P) and (m, P) over parameters of `sizes`; `paired` ones are of the same n examples."""
    columns = list(zip(left.split(sizes, dim=1), right.split(sizes, dim=1), strict=True))
    inner = [(one * other).sum(dim=1) if paired else one @ other.T for one, other in columns]
    squares = ([part.square().sum(dim=1) for part in side] for side in zip(*columns, strict=True))
    return Block(torch.stack(inner), *map(torch.stack, squares))


def alignment(blocks, parts, groups):
    """How gradients of two kinds align: a frame block, part, group, cosine, absolute_cosine, ratio, pairs.

    blocks: name -> Block of the examples' gradients with others. parts: as `gradients.parts_of`; by group only the whole is
    looked at. groups: (n,) names of the examples' groups; "all" is all of them. ratio: mean norm of the left gradients over
    that of the right ones. Means are over pairs.
    """
    groups, rows = np.asarray(groups), []
    for name, block in blocks.items():
        for part, numbers in parts.items():
            cosines = block.cosines(numbers).numpy()
            left, right = (norms.numpy() for norms in block.norms(numbers))
            for group in ("all", *dict.fromkeys(groups)) if part == "all" else ("all",):
                chosen = (groups == group) | (group == "all")
                found, beside = cosines[chosen], right[chosen] if block.inner.ndim == 2 else right
                ratio = left[chosen].mean() / beside.mean()
                rows.append((name, part, group, found.mean(), np.abs(found).mean(), ratio, found.size))
    return pd.DataFrame(rows, columns=["block", "part", "group", "cosine", "absolute_cosine", "ratio", "pairs"])


def sketch(gradients, size, seed):
    """Random projection of the rows of `gradients` (n, P) to (n, size), which keeps inner products on average.

    A count sketch: every parameter is added to or subtracted from one random place of `size`, so a gradient is sketched as
    soon as it is there and need not be kept; the standard error of a cosine is about size ** -0.5.
    """
    generator = torch.Generator().manual_seed(seed)
    number = gradients.shape[1]
    places = torch.randint(size, (number,), generator=generator)
    signs = 2.0 * torch.randint(2, (number,), generator=generator) - 1
    return torch.stack([row.new_zeros(size).index_add_(0, places, row * signs) for row in gradients])


def agreement(exact, estimated):
    """Pearson and Spearman correlation, share of equal signs and root mean square error of estimated cosines, the spread of
    the exact ones, and their number."""
    exact, estimated = pd.Series(exact.numpy().ravel()), pd.Series(estimated.numpy().ravel())
    error = np.sqrt(((exact - estimated) ** 2).mean())
    same = (np.sign(exact) == np.sign(estimated)).mean()
    return exact.corr(estimated), exact.corr(estimated, "spearman"), same, error, exact.std(), len(exact)


def estimates(blocks, gradients, parts, sketch_sizes, seed):
    """Cheap estimates of the cosines of each block beside the exact ones: a frame block, estimator, size, pearson,
    spearman, sign_agreement, error (root mean square), spread (of the exact cosines), pairs.

    blocks: name -> Block; gradients: name -> (left, right), what it is of. Estimators: the kernel of the last layer alone,
    and random projections to `sketch_sizes` dimensions.
    """
    rows = []
    for name, block in blocks.items():
        exact = block.cosines(parts["all"])
        rows.append((name, "last layer", np.nan, *agreement(exact, block.cosines(parts["last layer"]))))
    for size in sketch_sizes:
        sketches = {id(side): sketch(side, size, seed) for pair in gradients.values() for side in pair}
        for name, (left, right) in gradients.items():
            estimated = block_of(sketches[id(left)], sketches[id(right)], [size]).cosines([0])
            exact = blocks[name].cosines(parts["all"])
            rows.append((name, "random projection", size, *agreement(exact, estimated)))
    columns = ["block", "estimator", "size", "pearson", "spearman", "sign_agreement", "error", "spread", "pairs"]
    return pd.DataFrame(rows, columns=columns)
