"""Post-training of the generation branch by SFT or DPO + NLL through TRL's own trainers (paper section 3).

Rows are tokenised here, in the joint vocabulary of the image policy: completions are image codes, and the loss is on them
alone. TRL has no public door for such rows, hence the two subclasses.
"""

import argparse
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import trl.trainer.utils
from datasets import Dataset
from transformers import TrainerCallback
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from replication.files import atomic_directory
from replication.models.janus import JanusModel
from replication.provenance import write_provenance

# TRL allocates logit tiles of 32,768 columns however small the vocabulary; narrow ones train the embedded model 10 % faster
# and change nothing beyond rounding.
trl.trainer.utils._CHUNKED_LOGPROB_CHUNK_SIZE = 512

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


class PreTokenized:
    """A TRL trainer whose rows are used as they are and which reports to nobody."""

    def _prepare_dataset(self, dataset, *args, **kwargs):
        return dataset

    def _send_telemetry(self):
        pass


class ImageSFTTrainer(PreTokenized, SFTTrainer):
    """Token NLL of the chosen image given its prompt."""


class ImageDPOTrainer(PreTokenized, DPOTrainer):
    """-log sigmoid(beta (log ratio of chosen - log ratio of rejected)) + nll_weight * NLL of chosen."""


class StopAtNaN(TrainerCallback):
    def on_log(self, args, state, control, logs, **kwargs):
        if not math.isfinite(logs.get("loss", 0.0)):
            raise SystemExit(
                f"The training loss is {logs['loss']} at step {state.global_step}; lower the learning rate."
            )


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


def new_trainer(policy, training_set, codes, config, seed, output_dir):
    """The TRL trainer of `config["method"]`, `sft` or `dpo`; `config` otherwise holds the trainer's own arguments,
    plus `nll_weight` for DPO. The reference of DPO is the policy as it is now."""
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
        "bf16": False,  # float32: TRL's default bf16 is slower and less exact on a CPU
        "gradient_checkpointing": False,  # TRL's default saves memory that is not short here
        "dataloader_pin_memory": False,
        "save_strategy": "no",
        "report_to": "none",
        "logging_strategy": "epoch",
        "logging_first_step": True,
        "logging_nan_inf_filter": False,
    }
    if config["method"] == "sft":
        trainer, rows = ImageSFTTrainer, sft_rows(policy, training_set, codes)
        arguments = SFTConfig(**arguments)
    else:
        trainer, rows = ImageDPOTrainer, dpo_rows(policy, training_set, codes)
        arguments = DPOConfig(
            **arguments,
            beta=config["beta"],
            loss_type=["sigmoid", "sft"],
            loss_weights=[1.0, config["nll_weight"]],
            precompute_ref_log_probs=True,
        )
    return trainer(
        model=policy, args=arguments, train_dataset=rows, processing_class=policy.tokenizer, callbacks=[StopAtNaN()]
    )


def post_train(model, training_set, codes, config, seed, output_dir):
    """Train `model` in place and return the training log, a frame of `LOGGED_COLUMNS` at step 1 and every epoch.

    Raises SystemExit with one sentence when the loss is not finite.
    """
    trainer = new_trainer(model.image_policy(config["trained_modules"]), training_set, codes, config, seed, output_dir)
    trainer.train()
    log = pd.DataFrame([entry for entry in trainer.state.log_history if "loss" in entry])
    return log[[column for column in LOGGED_COLUMNS if column in log]]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=json.loads, required=True, help="canonical JSON of the post_training section")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--model", required=True, help="checkpoint folder of the base model")
    parser.add_argument("--candidates", type=Path, required=True, help="folder with codes.npy")
    parser.add_argument("--training-set", type=Path, required=True, help="CSV that refers to rows of codes.npy")
    parser.add_argument("--output", type=Path, required=True, help="folder of the new checkpoint")
    arguments = parser.parse_args()
    config = arguments.config
    training_set = pd.read_csv(arguments.training_set)
    if training_set.empty:
        raise SystemExit(f"{arguments.training_set} has no rows, so there is nothing to train on.")
    codes = np.load(arguments.candidates / "codes.npy", allow_pickle=False)
    model = JanusModel.load(arguments.model, config["model"])
    with atomic_directory(arguments.output) as folder:
        log = post_train(model, training_set, codes, config, arguments.seed, folder)
        model.save(folder)
        log.to_csv(folder / "training_log.csv", index=False)
        write_provenance(folder / "provenance.json", config, arguments.seed)


if __name__ == "__main__":
    main()
