"""Post-training of the generation branch by SFT or DPO + NLL through TRL's own trainers (paper section 3).

Rows are tokenised here, in the joint vocabulary of the image policy: completions are image codes, and the loss is on them
alone. A training that was stopped goes on from an earlier end of an epoch, and ends as if it had not been. On several GPUs,
each with per_device_train_batch_size samples per step, trains `torchrun -m replication.post_training`, each with a copy of
the model, and `accelerate launch --config_file profiles/fsdp.yaml -m replication.post_training`, each with a part of it.
"""

import argparse
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import trl.trainer.utils
from accelerate import PartialState
from datasets import Dataset, load_from_disk
from peft import LoraConfig
from transformers import set_seed
from trl import DPOConfig, SFTConfig

from replication.dynamics.interventions import OrthogonalSteps
from replication.files import atomic_directory
from replication.gpu_memory import check_gpu, post_training_memory
from replication.models.interface import load_model
from replication.provenance import write_provenance
from replication.trainers import (
    CheckpointSometimes,
    ImageDPOTrainer,
    ImageSFTTrainer,
    StopAtNaN,
    put_together,
    weights_in_parts,
)

LOGGED_COLUMNS = [
    "step",
    "epoch",
    "loss",
    "learning_rate",
    "grad_norm",
    "mean_token_accuracy",
    "rewards/chosen",
    "rewards/rejected",
    "rewards/accuracies",
    "rewards/margins",
    "logps/chosen",
    "logps/rejected",
]


def sft_rows(policy, training_set, codes):
    """Dataset of input_ids and labels: prompt and image in the joint vocabulary, the loss on the image codes only.

    training_set: frame with columns prompt and chosen, a row of codes (n, T).
    """
    prompts = policy.prompt_ids(training_set["prompt"].tolist())
    chosen = codes[training_set["chosen"]].tolist()
    return Dataset.from_dict(
        {
            "input_ids": [prompt + image for prompt, image in zip(prompts, chosen, strict=True)],
            "labels": [[-100] * len(prompt) + image for prompt, image in zip(prompts, chosen, strict=True)],
        }
    )


def dpo_rows(policy, training_set, codes):
    """Dataset of prompt_ids, chosen_ids and rejected_ids; `training_set` has columns prompt, chosen and rejected."""
    return Dataset.from_dict(
        {
            "prompt_ids": policy.prompt_ids(training_set["prompt"].tolist()),
            "chosen_ids": codes[training_set["chosen"]].tolist(),
            "rejected_ids": codes[training_set["rejected"]].tolist(),
        }
    )


def trainer_arguments(config, seed, output_dir):
    """The arguments of TRL's `SFTConfig` or `DPOConfig` that `config` asks for."""
    arguments = {
        "output_dir": output_dir,
        "seed": seed,
        "num_train_epochs": config["epochs"],
        "learning_rate": config["learning_rate"],
        "per_device_train_batch_size": config["per_device_train_batch_size"],
        "lr_scheduler_type": config["lr_scheduler_type"],
        "warmup_steps": config["warmup_ratio"],  # a share of all steps when below 1
        "weight_decay": config["weight_decay"],
        "max_grad_norm": config["max_grad_norm"],
        "max_length": None,
        "use_cpu": config["model"]["device"] == "cpu",
        # said either way: TRL's own default is bf16, even on a CPU, where it is slower and less exact
        "bf16": config["model"]["dtype"] == "bfloat16",
        "gradient_checkpointing": config["gradient_checkpointing"],
        "dataloader_pin_memory": False,
        "save_strategy": "no",  # but see CheckpointSometimes
        "save_total_limit": 1,
        "report_to": "none",
        "logging_strategy": "epoch",
        "logging_first_step": True,
        "logging_nan_inf_filter": False,
    }
    if config["method"] == "dpo":
        arguments |= {
            "beta": config["beta"],
            "loss_type": ["sigmoid", "sft"],
            "loss_weights": [1.0, config["nll_weight"]],
        }
    return arguments


def new_trainer(policy, training_set, codes, config, seed, output_dir, epochs=None, reference=None, candidates=None):
    """The TRL trainer of `config["method"]`, `sft` or `dpo`; `config` otherwise holds the trainer's own arguments,
    `lora`, None or the arguments of a LoRA on the linear layers of the trained modules, for SFT `condition_dropout`, and for
    DPO `nll_weight`.

    epochs: (first, last), a phase of the training; all by default. The reference of DPO is `reference`, or else the policy
    as it is now; its log-probabilities are computed once and stored. candidates: for `orthogonal_to`, see `OrthogonalSteps`.
    """
    set_seed(seed)  # LoRA starts from random weights
    first, last = epochs or (0, config["epochs"])
    arguments = trainer_arguments({**config, "epochs": last - first}, seed, output_dir)
    if config["method"] == "sft":
        trainer, rows = ImageSFTTrainer, sft_rows(policy, training_set, codes)
        arguments, extra = SFTConfig(**arguments), {"condition_dropout": config["condition_dropout"]}
    else:
        trainer, rows = ImageDPOTrainer, dpo_rows(policy, training_set, codes)
        arguments = DPOConfig(**arguments, precompute_ref_log_probs=True)  # before it, no process knows of the others
        # TRL stores the reference's log-probabilities beside the rows, where all processes must find them.
        stored = Path(output_dir) / "rows"
        with arguments.main_process_first():
            if arguments.process_index == 0:
                rows.save_to_disk(stored)
            rows = load_from_disk(stored)
        extra = {} if reference is None else {"ref_model": reference}
    callbacks = [StopAtNaN(), CheckpointSometimes(config["checkpoint_every_minutes"])]
    if config["orthogonal_to"]:  # no checkpoint holds what this remembers
        callbacks[1] = OrthogonalSteps(policy.unified, candidates, codes, config["orthogonal_to"], seed)
    adapter = config[
        "lora"
    ] and LoraConfig(  # of every linear layer, whatever a family calls it: Phi has dense, fc1 and fc2
        target_modules=rf".*\.(?:{config['trained_modules']})\..*(?:_proj|\.dense|\.fc1|\.fc2)", **config["lora"]
    )
    # TRL allocates tiles of 32,768 logits however few there are; those of the embedded model have 320, and it trains 10 %
    # faster with them, to the same bytes.
    trl.trainer.utils._CHUNKED_LOGPROB_CHUNK_SIZE = policy.unified.num_codes
    return trainer(
        model=policy,
        args=arguments,
        train_dataset=rows,
        processing_class=policy.tokenizer,
        callbacks=callbacks,
        peft_config=adapter,
        schedule=(first, last, config["epochs"]),
        **extra,
    )


def last_checkpoint(progress):
    """The newest checkpoint in the folder `progress` that was not cut off, or None. The trainer's state is the last of a
    checkpoint's files to be written, and the checkpoint before is deleted after it only."""
    for state in sorted(progress.glob("checkpoint-*/trainer_state.json"), key=lambda path: -path.stat().st_mtime_ns):
        try:
            json.loads(state.read_text())
        except json.JSONDecodeError:
            continue
        return str(state.parent)
    return None


def post_train(model, training_set, codes, config, seed, progress, epochs=None, reference=None, candidates=None):
    """Train `model` in place and return the training log, a frame of `LOGGED_COLUMNS` at step 1 and every epoch.

    progress: folder of the last checkpoint; what an equal, interrupted call left there is gone on from. epochs: (first,
    last), a phase of the training; all by default. reference: the model that DPO is measured against, `model` by default.
    Raises SystemExit with one sentence when the loss is not finite.
    """
    modules = config["trained_modules"]
    trainer = new_trainer(
        model.image_policy(modules),
        training_set,
        codes,
        config,
        seed,
        progress,
        epochs,
        reference and reference.image_policy(modules),
        candidates,
    )
    trainer.train(resume_from_checkpoint=last_checkpoint(progress))
    if config["lora"]:
        trainer.model.merge_and_unload()
    if trainer.is_fsdp_enabled:
        put_together(trainer.model, trainer.is_world_process_zero(), getattr(torch, config["model"]["dtype"]))
    log = pd.DataFrame([entry for entry in trainer.state.log_history if "loss" in entry])
    log["epoch"] += trainer.schedule[0]
    return log[[column for column in LOGGED_COLUMNS if column in log]]


def training_counts(steps, training_set, epochs):
    """What a training of `epochs` (first, last) took: a frame of one row first_epoch, last_epoch, samples, steps."""
    first, last = epochs
    row = {"first_epoch": first, "last_epoch": last, "samples": len(training_set), "steps": steps}
    return pd.DataFrame([row])


def check_equal_compute(counts, expected):
    """Raises SystemExit unless a control took the epochs, samples and optimizer steps of the run that it is a control of."""
    if counts.to_dict("records") != expected.to_dict("records"):
        raise SystemExit(
            f"This control of equal compute takes {counts.to_dict('records')[0]} and not {expected.to_dict('records')[0]}; "
            "give it the phases and the training settings of the experiment that schedule.like names."
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=json.loads, required=True, help="canonical JSON of the post_training section")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--model", required=True, help="checkpoint folder of the base model")
    parser.add_argument("--candidates", type=Path, required=True, help="folder with codes.npy")
    parser.add_argument("--training-set", type=Path, required=True, help="CSV that refers to rows of codes.npy")
    parser.add_argument("--epochs", type=int, nargs=2, help="train from this epoch to that; all unless given")
    parser.add_argument("--reference", help="checkpoint folder of DPO's reference, unless it is --model")
    parser.add_argument("--like", type=Path, help="a checkpoint of this station that must have taken equal steps")
    parser.add_argument("--output", type=Path, required=True, help="folder of the new checkpoint")
    arguments = parser.parse_args()
    config = arguments.config
    epochs = arguments.epochs or [0, config["epochs"]]
    training_set = pd.read_csv(arguments.training_set)
    if training_set.empty:
        raise SystemExit(f"{arguments.training_set} has no rows, so there is nothing to train on.")
    if weights_in_parts() and (config["lora"] or config["orthogonal_to"]):
        raise SystemExit("FSDP is for training all weights; set post_training.lora=null, or start this with torchrun.")
    if arguments.like:
        expected = pd.read_csv(arguments.like / "training_counts.csv")
        check_equal_compute(training_counts(expected["steps"].item(), training_set, epochs), expected)  # before hours
    codes = np.load(arguments.candidates / "codes.npy", allow_pickle=False)
    PartialState(cpu=config["model"]["device"] == "cpu")  # each process takes a GPU of its own
    if not weights_in_parts():
        needed = post_training_memory(config, bool(arguments.reference))
        check_gpu(config["model"], needed, "post_training.per_device_train_batch_size")
    model = load_model(arguments.model, config["model"])
    reference = None
    if config["method"] == "dpo" and (arguments.reference or weights_in_parts()):  # of which no process has a whole
        reference = load_model(arguments.reference or arguments.model, config["model"])
    candidates = pd.read_csv(arguments.candidates / "candidates.csv") if config["orthogonal_to"] else None
    progress = _progress_folder(arguments)
    log = post_train(model, training_set, codes, config, arguments.seed, progress, epochs, reference, candidates)
    if not PartialState().is_main_process:
        return  # one of several that were started; all end with the same weights, or parts of them
    counts = training_counts(log["step"].iloc[-1], training_set, epochs)
    if arguments.like:
        check_equal_compute(counts, expected)
    with atomic_directory(arguments.output) as folder:
        model.save(folder)
        log.to_csv(folder / "training_log.csv", index=False)
        counts.to_csv(folder / "training_counts.csv", index=False)
        write_provenance(folder / "provenance.json", config, arguments.seed)
    shutil.rmtree(progress.parent, ignore_errors=True)


def _progress_folder(arguments):
    """`<output>.progress/<digest of everything that the training depends on>`: what another setting left is not gone on
    from."""
    settings = [arguments.config, arguments.seed, arguments.epochs]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    inputs = [
        arguments.training_set,
        arguments.candidates / "codes.npy",
        *sorted(Path(arguments.model).glob("*.safetensors")),
        *sorted(Path(arguments.reference or arguments.model).glob("*.safetensors")),
    ]
    for path in inputs:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return arguments.output.with_name(f"{arguments.output.name}.progress") / digest.hexdigest()[:16]


if __name__ == "__main__":
    main()
