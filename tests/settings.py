"""What most tests leave alone: the model's configuration, and the `post_training` settings of a short, plain run."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
# The benchmarks' own prompt files, which are no part of the repository; None where they are not at hand.
REAL_PROMPTS = next((path for path in (ROOT / "../shared/data", ROOT / "shared/data") if path.exists()), None)
MODEL = {
    "name": "small",
    "class": "replication.models.janus.JanusModel",
    "question": "does this image describe {prompt} ?",
    "accept": "yes",
    "reject": "no",
    "device": "cpu",
    "dtype": "float32",
    "compile": False,
}
FAMILIES = {  # the configuration of each family's embedded model
    "janus": MODEL,
    "emu3": {**MODEL, "class": "replication.models.emu3.Emu3Model", "image_area": 576},
    "showo": {
        **MODEL,
        "class": "replication.models.showo.ShowoModel",
        "image_area": 576,
        "decoding_steps": 12,
        "choice_noise": 1.0,
        "likelihood_steps": 4,
    },
}
TRAINING = {
    "model": MODEL,
    "epochs": 6,
    "learning_rate": 1e-3,
    "per_device_train_batch_size": 4,
    "lr_scheduler_type": "constant",
    "warmup_ratio": 0.0,
    "weight_decay": 0.0,
    "max_grad_norm": 1.0,
    "trained_modules": "language_model",
    "checkpoint_every_minutes": 5,
    "gradient_checkpointing": False,
    "lora": None,
    "orthogonal_to": None,
}
SFT = {**TRAINING, "method": "sft", "condition_dropout": 0.0}
DPO = {**TRAINING, "method": "dpo", "beta": 0.1, "nll_weight": 0.5}
