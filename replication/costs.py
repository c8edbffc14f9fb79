"""What sampling, verdicts, judges and training cost: floating-point operations and seconds, from a model's sizes."""

from replication.gpu_memory import RESERVE, TEXT_TOKENS
from replication.judges.hub import WORKING_SPACE

# assumption: an NVIDIA A100 with 80 GB (its data sheet): bfloat16 operations per second, bytes per second
PEAK_OPERATIONS, PEAK_BYTES = 312e12, 2.0e12
GPU_MEMORY = 80e9  # bytes, of the same
UTILISATION = 0.4  # assumption: of both, where no benchmark was run; usual for large models outside of tuned kernels
JUDGE_TOKENS = 250  # of an image of 384 x 384 pixels and the question (configs/judge/qwen2_5_vl_7b.yaml)
JUDGES = {"qwen2_5_vl_7b": 8.29e9, "qwen2_5_vl_32b": 33.5e9, "qwen2_5_vl_72b": 73.4e9}  # parameters (model cards)


def judge_memory(parameters):
    """Bytes of a judge in 16 bits, over all GPUs that it is spread over."""
    return 2 * parameters + WORKING_SPACE + RESERVE


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
