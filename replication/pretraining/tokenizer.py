"""The VQ image tokenizer of the embedded model, trained from scratch by reconstruction.

transformers' quantiser looks codes up by Euclidean distance but decodes them l2-normalised. Both agree when the
codebook lies on the unit sphere, so its rows are normalised after every step.
"""

import numpy as np
import torch
from torch.nn import functional as F
from tqdm import trange
from transformers.models.janus.modeling_janus import JanusVQVAE

from replication.models.tiny import PATCH_SIZE
from replication.scenes import SUBTASKS
from replication.scenes.renderer import render
from replication.scenes.world import add_distractors, sample_scene, sample_split_meaning


def to_pixel_values(images: np.ndarray) -> torch.Tensor:
    """(B, H, W, 3) uint8 to (B, 3, H, W) float in [-1, 1], as the embedded processor's mean and std of 0.5 do."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1


def random_pictures(number: int, rng: np.random.Generator) -> np.ndarray:
    """Pictures of training scenes of all subtasks, with up to two further objects: (number, 24, 24, 3) uint8."""
    scenes = []
    for _ in range(number):
        meaning = sample_split_meaning(SUBTASKS[rng.integers(len(SUBTASKS))], held_out=False, rng=rng)
        scenes.append(add_distractors(sample_scene(meaning, rng), int(rng.integers(3)), rng))
    return render(scenes, rng)


def train_tokenizer(vqmodel: JanusVQVAE, seed: int, steps: int, batch_size: int, learning_rate: float) -> None:
    """Train the VQ model in place: reconstruction (L1 + L2) and commitment; one-cycle learning rate.

    The first tenth of the steps runs without quantisation. Then the codebook starts at the latents of patches that look
    different, so that codes are not spent on one background in many contexts; codes that no latent used in 50 steps
    restart at the patches that are reconstructed worst.
    """
    rng = np.random.default_rng((seed, 1))
    vqmodel.train()
    optimizer = torch.optim.AdamW(vqmodel.parameters(), lr=learning_rate, betas=(0.9, 0.99), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, steps, pct_start=0.1)
    codebook = vqmodel.quantize.embedding.weight
    unquantised_steps, used = steps // 10, torch.zeros(len(codebook), dtype=torch.bool)
    progress = trange(steps, desc="image tokenizer", unit="step", mininterval=5)
    for step in progress:
        if step == unquantised_steps:
            _start_codebook(vqmodel, to_pixel_values(random_pictures(40 * batch_size, rng)))
        pixels = to_pixel_values(random_pictures(batch_size, rng))
        latents = F.normalize(vqmodel.quant_conv(vqmodel.encoder(pixels)), dim=1)
        if step < unquantised_steps:
            quantised, commitment = latents, latents.new_zeros(())
        else:
            quantised, commitment, codes = vqmodel.quantize(latents)
            used[codes] = True
        reconstruction = vqmodel.decoder(vqmodel.post_quant_conv(quantised))
        loss = F.mse_loss(reconstruction, pixels) + 0.5 * F.l1_loss(reconstruction, pixels) + commitment
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vqmodel.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            codebook.copy_(F.normalize(codebook, dim=1))
            if step > unquantised_steps and step % 50 == 0:
                if step < 0.8 * steps:
                    unused = (~used).nonzero().squeeze(1)
                    worst = _patches(reconstruction - pixels).square().sum(1).argsort(descending=True)
                    codebook[unused] = _vectors(latents)[worst[: len(unused)]]
                progress.set_postfix(loss=f"{loss.item():.4f}", used=int(used.sum()))
                used.zero_()
    vqmodel.eval()


def _patches(pixels: torch.Tensor) -> torch.Tensor:
    """(B, 3, H, W) to one row of pixels per image code: (B * T, 3 * P * P)."""
    return F.unfold(pixels, PATCH_SIZE, stride=PATCH_SIZE).transpose(1, 2).flatten(0, 1)


def _vectors(latents: torch.Tensor) -> torch.Tensor:
    """(B, D, h, w) to one row per image code, in the order of `_patches`: (B * T, D)."""
    return latents.detach().flatten(2).transpose(1, 2).flatten(0, 1)


@torch.no_grad()
def _start_codebook(vqmodel: JanusVQVAE, pixels: torch.Tensor) -> None:
    """Put the codebook at the latents of patches that look most different (farthest-point sampling on pixels)."""
    patches = _patches(pixels)
    vectors = torch.cat(
        [_vectors(F.normalize(vqmodel.quant_conv(vqmodel.encoder(part)), dim=1)) for part in pixels.split(64)]
    )
    codebook = vqmodel.quantize.embedding.weight
    chosen = 0
    distance = torch.full((len(patches),), torch.inf)
    for code in range(len(codebook)):
        codebook[code] = vectors[chosen]
        distance = torch.minimum(distance, (patches - patches[chosen]).square().sum(1))
        chosen = int(distance.argmax())


@torch.no_grad()
def encode(vqmodel: JanusVQVAE, images: np.ndarray, batch_size: int = 256) -> torch.Tensor:
    """Image codes of pictures: (B, H, W, 3) uint8 -> (B, 36) int64."""
    batches = [
        vqmodel.encode(to_pixel_values(images[start : start + batch_size])).image_tokens.view(
            len(images[start : start + batch_size]), -1
        )
        for start in range(0, len(images), batch_size)
    ]
    return torch.cat(batches)
