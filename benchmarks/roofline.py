"""The least time that sampling can take on a machine, from the arithmetic and the memory traffic that it cannot avoid."""

import torch

from benchmarks.timing import synchronised


def least_seconds(work):
    return min(synchronised(work)[0] for _ in range(5))


def peak_rates(device, dtype):
    """Measured on this machine: (floating-point operations per second of a large matrix product, bytes per second read and
    written by a large copy)."""
    size = 8192 if device == "cuda" else 2048
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    flops = 2 * size**3 / least_seconds(lambda: left @ right)
    source = torch.empty(2**30 if device == "cuda" else 2**28, device=device, dtype=torch.uint8)
    target = torch.empty_like(source)
    return flops, 2 * source.numel() / least_seconds(lambda: target.copy_(source))


def least_sampling_seconds(model, images, prompt_length, device):
    """Seconds that a guided batch of `images` needs at the least, and which of the two limits it: every step multiplies
    2 x `images` rows by all weights below the codes, reads these weights once, and every key and value written so far."""
    config, core = model.model.config.text_config, model.model.model
    steps, rows = model.model.config.vision_config.num_image_tokens, 2 * images
    weights = sum(
        parameter.numel()
        for part in (core.language_model.layers, core.generation_head)
        for parameter in part.parameters()
    )
    past = sum(prompt_length + step for step in range(steps))
    key_values = 2 * config.num_hidden_layers * config.hidden_size
    operations = 2 * weights * rows * steps + 2 * key_values * rows * past
    size = next(core.language_model.parameters()).element_size()
    flops, bandwidth = peak_rates(device, model.model.dtype)
    compute, memory = operations / flops, size * (weights * steps + key_values * rows * past) / bandwidth
    return max(compute, memory), "compute" if compute > memory else "memory"
