"""TRL's own trainers, as this package needs them: rows that are tokenised already, phases, checkpoints of what is trained, and
weights that lie in parts on several processes (profiles/fsdp.yaml).
"""

import math
import time
from pathlib import Path

import torch
from accelerate.utils import broadcast_object_list, parse_flag_from_env
from safetensors.torch import load_file, save_file
from torch.distributed.fsdp import MixedPrecisionPolicy
from torch.distributed.tensor import DTensor
from torch.nn import Parameter
from torch.optim.lr_scheduler import LambdaLR
from transformers import PreTrainedModel, TrainerCallback
from trl import DPOTrainer, SFTTrainer

from replication.corruption import named_rng


def weights_in_parts():
    """Whether `accelerate launch` was told that each process holds a part of the weights (FSDP)."""
    return parse_flag_from_env("ACCELERATE_USE_FSDP")


def put_together(policy, main, dtype):
    """Give `policy` its whole weights back, in place, of which each process holds a part: in the `main` process, on the
    processor in `dtype`, ready to be saved. All processes must call this."""
    for name, part in list(policy.named_parameters()):
        if isinstance(part, DTensor):
            whole = part.full_tensor()
            if main:
                module, _, own = name.rpartition(".")
                policy.get_submodule(module).register_parameter(own, Parameter(whole.to("cpu", dtype)))
    for module in policy.unified.model.modules():
        if isinstance(module, PreTrainedModel):
            module.tie_weights()  # with what has the same weights and is no part of the policy


class PreTokenized:
    """A TRL trainer whose rows are used as they are, which reports to nobody, and whose checkpoints hold the trained
    parameters only: the base model has all others."""

    def _prepare_dataset(self, dataset, *args, **kwargs):
        return dataset

    def _send_telemetry(self):
        pass

    def create_model_card(self, *args, **kwargs):
        pass

    def create_accelerator_and_postprocess(self):
        super().create_accelerator_and_postprocess()
        if weights_in_parts() and not self.is_fsdp_enabled:
            raise SystemExit("accelerate lays weights in parts on GPUs only; leave out --config_file on a processor.")
        if self.is_fsdp_enabled and self.args.bf16:
            # Weights are kept in float32 and cast for each step. accelerate's own policy also sums gradients in bfloat16, and
            # rounds the log-probabilities that leave the model to it.
            policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
            self.accelerator.state.fsdp_plugin.mixed_precision_policy = policy

    def _save(self, output_dir, state_dict=None):
        if not self.args.should_save:
            return
        policy = self.accelerator.unwrap_model(self.model)
        state = state_dict or policy.state_dict()
        trained = {name: state[name].contiguous() for name, value in policy.named_parameters() if value.requires_grad}
        Path(output_dir).mkdir(parents=True, exist_ok=True)
        save_file(trained, Path(output_dir) / "trained.safetensors")

    def _save_rng_state(self, output_dir):
        super()._save_rng_state(output_dir)
        # The first process goes on to the trainer's state, by which a checkpoint is taken for whole.
        self.accelerator.wait_for_everyone()

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        if self.is_fsdp_enabled:  # every process has written its part
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        trained = load_file(Path(resume_from_checkpoint) / "trained.safetensors")
        loaded = self.accelerator.unwrap_model(self.model).load_state_dict(trained, strict=False)
        if loaded.unexpected_keys:
            raise SystemExit(
                f"{resume_from_checkpoint} is not a checkpoint of this training; delete it and start again."
            )


class InPhases:
    """A trainer that runs from epoch `first` to epoch `last` of `epochs`: schedule = (first, last, epochs)."""

    def __init__(self, *args, schedule, **kwargs):
        self.schedule = schedule
        super().__init__(*args, **kwargs)

    def create_scheduler(self, num_training_steps, optimizer=None):
        """The learning rates of a phase are its part of one schedule over all epochs, each as long as those here."""
        first, last, epochs = self.schedule
        steps_per_epoch = num_training_steps // (last - first)
        whole = super().create_scheduler(steps_per_epoch * epochs, optimizer)
        if first:
            rate = whole.lr_lambdas[0]
            self.lr_scheduler = LambdaLR(whole.optimizer, lambda step: rate(step + steps_per_epoch * first))
        return self.lr_scheduler


class ImageSFTTrainer(InPhases, PreTokenized, SFTTrainer):
    """Token NLL of the chosen image given its prompt; of a random share `condition_dropout` of all samples that a training
    sees, given no prompt."""

    def __init__(self, *args, condition_dropout, **kwargs):
        self.condition_dropout = condition_dropout
        super().__init__(*args, **kwargs)

    def compute_loss(self, model, inputs, *args, **kwargs):
        if self.condition_dropout:
            # drawn anew for every step, so that a training that goes on from a checkpoint draws the same
            place = f"{self.state.global_step}/{self.args.process_index}"
            rng = named_rng(self.args.seed, f"condition dropout/{place}")
            dropped = torch.from_numpy(rng.random(len(inputs["input_ids"])) < self.condition_dropout)
            without = self.accelerator.unwrap_model(model).without_prompts(inputs["input_ids"])
            dropped = dropped[:, None].to(without.device)
            inputs = {**inputs, "input_ids": torch.where(dropped, without, inputs["input_ids"])}
        return super().compute_loss(model, inputs, *args, **kwargs)


class ImageDPOTrainer(InPhases, PreTokenized, DPOTrainer):
    """-log sigmoid(beta (log ratio of chosen - log ratio of rejected)) + nll_weight * NLL of chosen."""


class StopAtNaN(TrainerCallback):
    def on_log(self, args, state, control, logs, **kwargs):
        if not math.isfinite(logs.get("loss", 0.0)):
            raise SystemExit(
                f"The training loss is {logs['loss']} at step {state.global_step}; lower the learning rate."
            )


class CheckpointSometimes(TrainerCallback):
    """Writes a checkpoint at the first end of an epoch after every so many minutes."""

    def __init__(self, minutes):
        self.minutes, self.last = minutes, time.monotonic()

    def on_epoch_end(self, args, state, control, **kwargs):
        due = [time.monotonic() - self.last >= 60 * self.minutes]
        broadcast_object_list(due)  # by the clock of the first process: all must write, or none
        if due[0]:
            control.should_save = True
            self.last = time.monotonic()
