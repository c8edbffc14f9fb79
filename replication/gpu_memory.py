"""GPU memory that stations take, from a model's sizes: planned before a run, and checked before anything is loaded."""

from typing import NamedTuple

import torch

from replication.image_cache import cache_length
from replication.models.worded import DECODED_AT_ONCE

ASKED_AT_ONCE = 32  # images (replication/verdicts.py, which a training does not depend on)
GB = 1e9
TEXT_TOKENS = 64  # assumption: of a prompt, or of a question without its image
RESERVE = 2 * GB  # assumption: CUDA's own, and fragments
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


class Sizes(NamedTuple):
    """Sizes of a model: `hidden`, `intermediate`, `layers` and `vocabulary` of its language model; number of `codes`, `tokens`
    and `pixels` (of a side) of an image; and `others`, parameters outside of the language model."""

    hidden: int
    intermediate: int
    layers: int
    vocabulary: int
    codes: int
    tokens: int
    pixels: int
    others: int

    @property
    def language_model(self):
        """Parameters of the language model: what the paper trains."""
        layer = 4 * self.hidden**2 + 3 * self.hidden * self.intermediate + 2 * self.hidden
        return self.layers * layer + self.hidden + self.vocabulary * self.hidden

    @property
    def parameters(self):
        return self.language_model + self.others


# from the `config.json` of the checkpoints; tests count the parameters of models of these sizes
SIZES = {
    "embedded_janus": Sizes(96, 288, 4, 49, 320, 36, 24, 1_082_731),
    "embedded_emu3": Sizes(96, 288, 4, 373, 320, 42, 24, 796_859),  # tokens with the ends of rows
    "janus_pro_1b": Sizes(2048, 5632, 24, 102400, 16384, 576, 384, 423_980_683),
    "janus_pro_7b": Sizes(4096, 11008, 30, 102400, 16384, 576, 384, 497_407_627),
}


def sampling_memory(sizes, bytes_per_value, batch, guided, answer_tokens):
    """Bytes to sample a batch of images and to have verdicts on it: weights, the key-value cache of images, which is kept for the
    next batch, and beside it the largest of logits and noise of one step, the decoder, and the questions of a few images with the
    cache of `answer_tokens` written ones (0: none is written)."""
    rows = batch * (2 if guided else 1)
    width = cache_length(TEXT_TOKENS + sizes.tokens)
    cache = 2 * sizes.layers * sizes.hidden * rows * width * bytes_per_value
    draw = rows * sizes.codes * 32  # float32 logits, log-probabilities and noise, and 64 random bits
    decoder = min(batch, DECODED_AT_ONCE) * sizes.pixels**2 * 128 * 4 * bytes_per_value  # 128 channels, four copies
    asked = min(batch, ASKED_AT_ONCE) * (TEXT_TOKENS + sizes.tokens + answer_tokens)
    kept = 2 * sizes.layers * sizes.hidden if answer_tokens else 0
    verdicts = asked * (kept + 8 * sizes.hidden + 4 * sizes.intermediate) * bytes_per_value
    return sizes.parameters * bytes_per_value + cache + max(draw, decoder, verdicts) + RESERVE


def training_memory(sizes, bytes_per_value, batch, images_per_sample, checkpointing, adapter, reference):
    """Bytes of one training step: weights, gradients and two moments of what is trained, activations, and logits.

    adapter: rank of LoRA, in float32, or None where the whole language model is trained. images_per_sample: 2 for DPO's pairs.
    reference: whether DPO's reference is a second model.
    """
    state = 3 * sizes.language_model * bytes_per_value
    if adapter:
        state = 4 * adapter_parameters(sizes, adapter) * BYTES["float32"]
    tokens = batch * images_per_sample * (TEXT_TOKENS + sizes.tokens)
    of_layer = tokens * (8 * sizes.hidden + 4 * sizes.intermediate) * bytes_per_value
    activations = tokens * sizes.hidden * bytes_per_value * sizes.layers + of_layer
    if not checkpointing:
        activations = of_layer * sizes.layers
    logits = (
        batch * images_per_sample * sizes.tokens * sizes.codes * 4 * 3
    )  # float32: logits, log-probabilities, gradient
    models = 2 if reference else 1
    return models * sizes.parameters * bytes_per_value + state + activations + logits + RESERVE


def adapter_parameters(sizes, rank):
    """Parameters of LoRA on the seven matrices of every layer of a Llama."""
    attention, mlp = 4 * 2 * sizes.hidden, 3 * (sizes.hidden + sizes.intermediate)
    return sizes.layers * rank * (attention + mlp)


def drawing_memory(config, models=1):
    """Bytes that the stations `candidates` and `evaluation` take with this configuration, with so many models at once; None for a
    model whose sizes are not known."""
    if config["model"]["name"] not in SIZES:
        return None
    sizes, values = SIZES[config["model"]["name"]], BYTES[config["model"]["dtype"]]
    answer_tokens = config["answer_tokens"] if config["verdict"] == "written" else 0
    memory = sampling_memory(sizes, values, config["batch_size"], config["guidance_scale"] != 1, answer_tokens)
    return memory + (models - 1) * sizes.parameters * values


def post_training_memory(config, reference):
    """Bytes that the station `post_training` takes with this configuration; None for a model whose sizes are not known.

    reference: whether a second model is loaded; SFT has none."""
    if config["model"]["name"] not in SIZES:
        return None
    pair, adapter = 2 if config["method"] == "dpo" else 1, config["lora"] and config["lora"]["r"]
    return training_memory(
        SIZES[config["model"]["name"]],
        BYTES[config["model"]["dtype"]],
        config["per_device_train_batch_size"],
        pair,
        config["gradient_checkpointing"],
        adapter,
        reference and pair == 2,
    )


def check_gpu(model, needed, setting):
    """Raises SystemExit where the model's device is a GPU with less free memory than `needed` bytes (None: not known), before
    anything is loaded; `setting` names what would need less."""
    if needed is None or model["device"] != "cuda" or not torch.cuda.is_available():
        return
    free = torch.cuda.mem_get_info()[0]
    if needed > free:
        raise SystemExit(
            f"This takes about {needed / GB:.0f} GB of GPU memory (replication/gpu_memory.py), but {free / GB:.0f} GB are free; take a "
            f"larger GPU, end what else runs on it, or lower {setting}."
        )
