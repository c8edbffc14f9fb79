"""Pre-train one base model from scratch: VQ tokenizer, then everything else; survives a stop."""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from replication.files import atomic_directory, atomic_file
from replication.models.janus import JanusModel
from replication.models.tiny import new_model, new_processor
from replication.pretraining.joint import train_jointly
from replication.pretraining.quality import measure_quality
from replication.pretraining.tokenizer import train_tokenizer


def pretrain(config: dict, seed: int, output: Path) -> None:
    """Write a checkpoint with quality.csv to `output`; intermediate states stay in `<output>.progress` until then.

    Args:
        config: sizes of both stages and the wordings (configs/pretraining).
        seed: names the base model; it seeds weights, scenes and batches.
    """
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    progress = output.with_name(f"{output.name}.progress")
    model, processor = new_model(seed), new_processor()
    vqmodel = model.model.vqmodel
    tokenizer_path = progress / "tokenizer.safetensors"
    if tokenizer_path.exists():
        vqmodel.load_state_dict(load_file(tokenizer_path))
        vqmodel.eval()
    else:
        train_tokenizer(vqmodel, seed, **config["tokenizer"])
        with atomic_file(tokenizer_path) as partial:
            save_file({name: tensor.contiguous() for name, tensor in vqmodel.state_dict().items()}, partial)
    unified = JanusModel(model, processor, **config["model"])
    train_jointly(
        model,
        processor,
        seed,
        question=unified.question,
        caption=unified.caption,
        progress_folder=progress,
        **config["joint"],
    )
    quality = measure_quality(unified, seed, config["quality_prompts_per_subtask"])
    with atomic_directory(output) as partial:
        model.save_pretrained(partial)
        processor.save_pretrained(partial)
        quality.to_csv(partial / "quality.csv", index=False)
        (partial / "pretraining.json").write_text(json.dumps({"seed": seed, **config}, indent=2, sort_keys=True) + "\n")
    shutil.rmtree(progress)
