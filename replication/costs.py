"""What sampling, verdicts and training cost: floating-point operations, GPU memory, seconds and disk, from a model's sizes."""

from typing import NamedTuple

from replication.judges.hub import WORKING_SPACE
from replication.models.worded import DECODED_AT_ONCE
from replication.sampling import CACHE_MULTIPLE
from replication.verdicts import ASKED_AT_ONCE

GB = 1e9
# assumption: an NVIDIA A100 with 80 GB (its data sheet): bfloat16 operations per second, bytes per second
PEAK_OPERATIONS, PEAK_BYTES = 312e12, 2.0e12
GPU_MEMORY = 80e9  # bytes, of the same
UTILISATION = 0.4  # assumption: of both, where no benchmark was run; usual for large models outside of tuned kernels
TEXT_TOKENS = 64  # assumption: of a prompt, or of a question without its image
RESERVE = 2 * GB  # assumption: CUDA's own, and fragments
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
JUDGE_TOKENS = 250  # of an image of 384 x 384 pixels and the question (configs/judge/qwen2_5_vl_7b.yaml)


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

JUDGES = {
    "qwen2_5_vl_7b": 8.29e9,
    "qwen2_5_vl_32b": 33.5e9,
    "qwen2_5_vl_72b": 73.4e9,
}  # parameters, of their model cards


def sampling_memory(sizes, bytes_per_value, batch, guided, answer_tokens):
    """Bytes to sample a batch of images and to have verdicts on it: weights, the key-value cache of images, which is kept for the
    next batch, and beside it the largest of logits and noise of one step, the decoder, and the questions of a few images with the
    cache of `answer_tokens` written ones (0: none is written)."""
    rows = batch * (2 if guided else 1)
    width = -(-(TEXT_TOKENS + sizes.tokens) // CACHE_MULTIPLE) * CACHE_MULTIPLE
    cache = 2 * sizes.layers * sizes.hidden * rows * width * bytes_per_value
    draw = rows * sizes.codes * 32  # float32 logits, log-probabilities and noise, and 64 random bits
    decoder = min(batch, DECODED_AT_ONCE) * sizes.pixels**2 * 128 * 4 * bytes_per_value  # 128 channels, four copies
    asked = min(batch, ASKED_AT_ONCE) * (TEXT_TOKENS + sizes.tokens + answer_tokens)
    kept = 2 * sizes.layers * sizes.hidden if answer_tokens else 0
    verdicts = asked * (kept + 8 * sizes.hidden + 4 * sizes.intermediate) * bytes_per_value
    return sizes.parameters * bytes_per_value + cache + max(draw, decoder, verdicts) + RESERVE


def judge_memory(parameters):
    """Bytes of a judge in 16 bits, over all GPUs that it is spread over."""
    return 2 * parameters + WORKING_SPACE + RESERVE


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
    """Seconds of a verdict each: one forward pass for the logit, and where answers are written, another one and a step per token."""
    passes = 2 if answer_tokens else 1
    operations = 2 * sizes.parameters * (passes * (sizes.tokens + TEXT_TOKENS) + answer_tokens)
    traffic = answer_tokens * sizes.language_model * bytes_per_value / batch
    return images * least_seconds(operations, traffic)


def judge_seconds(parameters, images, batch, answer_tokens):
    """Seconds for a judge's written answers about images: one forward pass each, and a step per token of the answer."""
    operations = 2 * parameters * (JUDGE_TOKENS + answer_tokens)
    return images * least_seconds(operations, answer_tokens * 2 * parameters / batch)


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
