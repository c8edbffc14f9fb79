"""What sampling, verdicts and training cost: floating-point operations, GPU memory, seconds and disk, from a model's sizes."""

from typing import NamedTuple

GB = 1e9
# assumption: an NVIDIA A100 with 80 GB (its data sheet): bfloat16 operations per second, bytes per second
PEAK_OPERATIONS, PEAK_BYTES = 312e12, 2.0e12
UTILISATION = 0.4  # assumption: of both, where no benchmark was run; usual for large models outside of tuned kernels
TEXT_TOKENS = 64  # assumption: of a prompt, or of a question without its image
RESERVE = 2 * GB  # assumption: CUDA's own, and fragments
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
CACHE_MULTIPLE = 16  # lengths of the key-value cache (replication/sampling.py)
DECODED_AT_ONCE = 32  # images (replication/models/autoregressive.py)


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


def sampling_memory(sizes, bytes_per_value, batch, guided):
    """Bytes to sample a batch of images: weights, the key-value cache, logits and noise of one step, and the decoder."""
    rows = batch * (2 if guided else 1)
    width = -(-(TEXT_TOKENS + sizes.tokens) // CACHE_MULTIPLE) * CACHE_MULTIPLE
    cache = 2 * sizes.layers * sizes.hidden * rows * width * bytes_per_value
    draw = rows * sizes.codes * 32  # float32 logits, log-probabilities and noise, and 64 random bits
    decoder = min(batch, DECODED_AT_ONCE) * sizes.pixels**2 * 128 * 4 * bytes_per_value  # 128 channels, four copies
    return sizes.parameters * bytes_per_value + max(cache + draw, decoder) + RESERVE


def training_memory(sizes, bytes_per_value, batch, images_per_sample, checkpointing, adapter):
    """Bytes of one training step: weights, gradients and two moments of what is trained, activations, and logits.

    adapter: rank of LoRA, or None where the whole language model is trained. images_per_sample: 2 for DPO's pairs.
    """
    trained = adapter_parameters(sizes, adapter) if adapter else sizes.language_model
    tokens = batch * images_per_sample * (TEXT_TOKENS + sizes.tokens)
    of_layer = tokens * (8 * sizes.hidden + 4 * sizes.intermediate) * bytes_per_value
    activations = tokens * sizes.hidden * bytes_per_value * sizes.layers + of_layer
    if not checkpointing:
        activations = of_layer * sizes.layers
    logits = (
        batch * images_per_sample * sizes.tokens * sizes.codes * 4 * 3
    )  # float32: logits, log-probabilities, gradient
    return (sizes.parameters + 3 * trained) * bytes_per_value + activations + logits + RESERVE


def adapter_parameters(sizes, rank):
    """Parameters of LoRA on the seven *_proj matrices of every layer."""
    attention, mlp = 4 * 2 * sizes.hidden, 3 * (sizes.hidden + sizes.intermediate)
    return sizes.layers * rank * (attention + mlp)


def sampling_seconds(sizes, bytes_per_value, images, batch, guided):
    """Seconds to sample images: each step reads the weights and, on average, half of the full cache of its batch."""
    rows = 2 if guided else 1
    operations = 2 * sizes.language_model * rows * (sizes.tokens + TEXT_TOKENS)
    cache = 2 * sizes.layers * sizes.hidden * bytes_per_value * rows * (TEXT_TOKENS + sizes.tokens / 2)
    traffic = sizes.tokens * (sizes.language_model * bytes_per_value / batch + cache)
    return images * least_seconds(operations, traffic)


def verdict_seconds(sizes, bytes_per_value, images, batch, answer_tokens):
    """Seconds of a verdict each: one forward pass, and where answers are written, one step per token of the answer."""
    operations = 2 * sizes.parameters * (sizes.tokens + TEXT_TOKENS + answer_tokens)
    traffic = answer_tokens * sizes.language_model * bytes_per_value / batch
    return images * least_seconds(operations, traffic)


def training_seconds(sizes, samples, epochs, images_per_sample, checkpointing, adapter):
    """Seconds of a training: forward 2, backward 4 (2 without the gradients of weights), repeated forward 2 operations per
    parameter and token; and for pairs the reference model's likelihoods, once."""
    per_token = 2 + (2 if adapter else 4) + (2 if checkpointing else 0)
    tokens = samples * images_per_sample * (TEXT_TOKENS + sizes.tokens)
    reference = 2 * tokens if images_per_sample == 2 else 0
    return least_seconds((per_token * epochs * tokens + reference) * sizes.language_model, 0)


def least_seconds(operations, traffic):
    """Whichever is slower, arithmetic or memory."""
    return max(operations / PEAK_OPERATIONS, traffic / PEAK_BYTES) / UTILISATION
