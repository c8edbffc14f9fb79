"""The VQ image tokenizer of an embedded model, trained from scratch.

Left to itself, a tokenizer of so simple a world spends most of its codes on one background in many contexts, and the
generation branch then learns their noise instead of the prompt. So codes are clusters of patches that look alike: the
encoder learns to name a patch's cluster, the decoder to draw the picture from the clusters' vectors.

transformers' quantisers look codes up by Euclidean distance; that of Janus decodes them l2-normalised. Both agree when the
codebook lies on the unit sphere, so its rows are normalised after every step. The codes of a lookup-free quantiser are the corners
of a cube, which stay where they are; to name one of them is to name each of its signs.
"""

import numpy as np
import torch
from torch.nn import functional as F
from tqdm import trange

from replication.models.tiny import PATCH_SIZE
from replication.models.worded import WordedModel
from replication.scenes import SUBTASKS
from replication.scenes.renderer import render
from replication.scenes.world import add_distractors, sample_scene, sample_split_meaning

SAME_PATCH = 0.3  # squared distance in pixel values: between noise (below 0.2) and the nearest two patches (0.38)
TEMPERATURE = 0.1  # of the cosine similarities that name a patch
NAMING_WEIGHT = 0.1  # keeps both losses of one order


def to_pixel_values(images: np.ndarray) -> torch.Tensor:
    """(B, H, W, 3) uint8 to (B, 3, H, W) float in [-1, 1], as the embedded processor's mean and std of 0.5 do."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1


def random_pictures(number: int, rng: np.random.Generator) -> np.ndarray:
    """Pictures of training scenes of all subtasks, with up to seven further objects: (number, 24, 24, 3) uint8."""
    scenes = []
    for _ in range(number):
        meaning = sample_split_meaning(SUBTASKS[rng.integers(len(SUBTASKS))], held_out=False, rng=rng)
        scenes.append(add_distractors(sample_scene(meaning, rng), int(rng.integers(8)), rng))
    return render(scenes, rng)


def train_tokenizer(unified: WordedModel, seed: int, steps: int, batch_size: int, learning_rate: float) -> None:
    """Train the model's image tokenizer in place: reconstruction (L1 + L2) from the right codes, cross-entropy of naming them.

    One-cycle learning rate. Codes beyond the number of patches that look different stay unused.
    """
    rng, vqmodel = np.random.default_rng((seed, 1)), unified.vqmodel
    vqmodel.train()
    optimizer = torch.optim.AdamW(vqmodel.parameters(), lr=learning_rate, betas=(0.9, 0.99), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, steps, pct_start=0.1)
    codebook = unified.codebook
    learnt = codebook.requires_grad
    if learnt:
        torch.nn.init.normal_(codebook)
    pixels = to_pixel_values(random_pictures(2000, rng))
    centres = _different_patches(pixels, len(codebook))
    names = len(centres) if learnt else len(codebook)  # signs make a name of every code, used or not
    counts = torch.bincount(torch.cdist(_patches(pixels), centres).argmin(dim=1), minlength=names)
    weights = counts.clamp(min=1).float().rsqrt()  # else the background drowns the rest
    progress = trange(steps, desc="image tokenizer", unit="step", mininterval=5)
    for step in progress:
        if learnt:
            with torch.no_grad():
                codebook.copy_(F.normalize(codebook, dim=1))
        pixels = to_pixel_values(random_pictures(batch_size, rng))
        codes = torch.cdist(_patches(pixels), centres).argmin(dim=1)
        latents = F.normalize(unified.image_latents(pixels), dim=1)
        vectors = latents.flatten(2).transpose(1, 2).flatten(0, 1)
        directions = codebook if learnt else F.normalize(codebook, dim=1)
        naming = F.cross_entropy(vectors @ directions[:names].T / TEMPERATURE, codes, weight=weights)
        quantised = codebook[codes].view(len(pixels), -1, codebook.shape[1]).transpose(1, 2).view_as(latents)
        reconstruction = unified.paint_latents(quantised)
        drawing = F.mse_loss(reconstruction, pixels) + 0.5 * F.l1_loss(reconstruction, pixels)
        optimizer.zero_grad()
        (drawing + NAMING_WEIGHT * naming).backward()
        torch.nn.utils.clip_grad_norm_(vqmodel.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 20 == 0:
            progress.set_postfix(naming=f"{naming.item():.4f}", drawing=f"{drawing.item():.4f}", codes=len(centres))
    if learnt:
        with torch.no_grad():
            codebook.copy_(F.normalize(codebook, dim=1))
            # an unused code must never be the nearest: it repeats the first one, and the lookup takes the first of equals
            codebook[len(centres) :] = codebook[0]
    vqmodel.eval()


def _patches(pixels: torch.Tensor) -> torch.Tensor:
    """(B, 3, H, W) to one row of pixels per image code: (B * T, 3 * P * P)."""
    return F.unfold(pixels, PATCH_SIZE, stride=PATCH_SIZE).transpose(1, 2).flatten(0, 1)


def _different_patches(pixels: torch.Tensor, most: int) -> torch.Tensor:
    """Up to `most` patches that look different: each the farthest from those before, until all are near one."""
    patches = _patches(pixels)
    chosen = [0]
    distance = (patches - patches[0]).square().sum(1)
    while len(chosen) < most and distance.max() > SAME_PATCH:
        chosen.append(int(distance.argmax()))
        distance = torch.minimum(distance, (patches - patches[chosen[-1]]).square().sum(1))
    return patches[chosen]


@torch.no_grad()
def encode(unified: WordedModel, images: np.ndarray, batch_size: int = 256) -> torch.Tensor:
    """Image codes of pictures: (B, H, W, 3) uint8 -> (B, 36) int64."""
    return torch.cat([unified.encode_pixels(pixels) for pixels in to_pixel_values(images).split(batch_size)])
