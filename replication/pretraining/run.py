"""Pre-train one base model from scratch: VQ tokenizer, then everything else; survives a stop."""

import hashlib
import json
import shutil
from pathlib import Path

import torch
from hydra.utils import get_method
from safetensors.torch import load_file, save_file

from replication.files import atomic_directory, atomic_file
from replication.pretraining.joint import train_jointly
from replication.pretraining.quality import measure_quality
from replication.pretraining.tokenizer import train_tokenizer


def pretrain(config: dict, seed: int, output: Path) -> None:
    """Write a checkpoint with quality.csv to `output`; intermediate states stay in `<output>.progress` until then, in a folder of
    these settings, so that what others left is not gone on from.

    Args:
        config: sizes of both stages, the wordings, and the function that makes a model with random weights
            (configs/pretraining).
        seed: names the base model; it seeds weights, scenes and batches.
    """
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    settings = hashlib.sha256(json.dumps([config, seed], sort_keys=True).encode()).hexdigest()
    progress = output.with_name(f"{output.name}.progress") / settings[:16]
    unified = get_method(config["untrained"])(seed, config["model"])
    vqmodel = unified.vqmodel
    tokenizer_path = progress / "tokenizer.safetensors"
    if tokenizer_path.exists():
        vqmodel.load_state_dict(load_file(tokenizer_path))
        vqmodel.eval()
    else:
        train_tokenizer(unified, seed, **config["tokenizer"])
        with atomic_file(tokenizer_path) as partial:
            save_file({name: tensor.contiguous() for name, tensor in vqmodel.state_dict().items()}, partial)
    train_jointly(unified, seed, progress_folder=progress, **config["joint"])
    quality = measure_quality(unified, seed, config["quality_prompts_per_subtask"])
    with atomic_directory(output) as partial:
        unified.save(partial)
        quality.to_csv(partial / "quality.csv", index=False)
        (partial / "pretraining.json").write_text(json.dumps({"seed": seed, **config}, indent=2, sort_keys=True) + "\n")
    shutil.rmtree(progress.parent)
