"""What can be wrong with a checkpoint folder, said before its weights are read."""

import json
from math import prod
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

ADVICE = "build or download it again"
WORKING_SPACE = (
    1.15  # Janus-Pro-7B takes 14.9 GB at batch 1 for 14.2 GB of weights (vllm-project/vllm-omni#3280), and more at 4
)


def weight_files(path):
    """Paths of the files that transformers reads the weights below the folder `path` from; they need not exist."""
    whole, index = Path(path) / "model.safetensors", Path(path) / "model.safetensors.index.json"
    if whole.exists() or not index.exists():
        return [whole]
    return [Path(path) / name for name in sorted(set(json.loads(index.read_text())["weight_map"].values()))]


def damaged_weights(path):
    """Those of `weight_files` that are missing or cut off; only headers are read."""
    damaged = []
    for file in weight_files(path):
        try:
            with safe_open(file, "pt"):
                pass
        except (OSError, SafetensorError):
            damaged.append(file)
    return damaged


def weight_bytes(path, dtype):
    """Bytes that the weights below the folder `path` take in `dtype`, such as "bfloat16"; only headers are read.

    Raises OSError where a file of weights is missing, and SafetensorError where one is cut off.
    """
    parameters = 0
    for file in weight_files(path):
        with safe_open(file, "pt") as weights:
            names = weights.keys()
            parameters += sum(prod(weights.get_slice(name).get_shape()) for name in names)
    return parameters * getattr(torch, dtype).itemsize


def check_memory(path, needed, free):
    """Raises SystemExit when a GPU with `free` bytes cannot hold a model with `needed` bytes of weights."""
    if needed * WORKING_SPACE > free:
        raise SystemExit(
            f"{path} needs about {needed * WORKING_SPACE / 2**30:.0f} GiB of GPU memory to draw one image, but "
            f"{free / 2**30:.0f} GiB are free; take a larger GPU, end what else runs on it, or choose a smaller model."
        )


def check_tokenizer(path, tokenizer, begin, text):
    """Raises SystemExit unless `tokenizer` gives `text` after `begin` back and begins it with begin-of-sequence.

    Some releases of transformers 5 read byte-level tokenizers that call themselves LlamaTokenizerFast, as those of DeepSeek
    do, without their spaces and without an error (huggingface/transformers#45488).
    """
    ids = tokenizer(begin + text)["input_ids"]
    if ids[0] != tokenizer.bos_token_id or tokenizer.decode(ids, skip_special_tokens=True) != text:
        raise SystemExit(
            f"This transformers reads the tokenizer of {path} wrongly: {text!r} becomes {tokenizer.decode(ids)!r}; "
            "install the versions in constraints.txt."
        )
