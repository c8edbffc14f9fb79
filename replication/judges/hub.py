"""How judges from the model hub are loaded."""

from pathlib import Path

import torch
from safetensors import SafetensorError

from replication.judges.interface import Judge
from replication.models.checkpoint_checks import weight_bytes

WORKING_SPACE = 4e9  # bytes; assumption: what a batch of configs/judge takes beside large weights
ADVICE = "delete the folder, so that it is downloaded again"


def check_judge(path, config):
    """What can be said of a downloaded folder before its weights are read: raises SystemExit with one sentence where it is missing,
    of another revision (where the hub's own client put it there) or damaged, or there is no GPU where one is asked for, or too little memory on it; device `auto` has that of
    all GPUs.
    """
    path, name = Path(path), config["name"]
    if not (path / "config.json").exists():
        raise SystemExit(f"There is no judge {name} in {path}; download {config['repository']} to there first.")
    downloaded = path / ".cache" / "huggingface" / "download" / "config.json.metadata"  # the hub's client writes it
    if downloaded.exists():
        revision = downloaded.read_text().split()[0]
        if revision != config["revision"]:
            raise SystemExit(
                f"{path} holds revision {revision} of {config['repository']}, but judge {name} is pinned to "
                f"{config['revision']}; {ADVICE}."
            )
    try:
        needed = weight_bytes(path, config["dtype"]) + WORKING_SPACE
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise SystemExit(f"{path} is not a readable judge {name}, {ADVICE}: {str(error).splitlines()[0]}") from error
    if config["device"] == "cpu":
        return
    if not torch.cuda.is_available():
        raise SystemExit(
            f"Judge {name} is set to the device {config['device']}, but torch sees no GPU here; ask for one, or set it to cpu."
        )
    gpus = range(torch.cuda.device_count()) if config["device"] == "auto" else [torch.cuda.current_device()]
    free = sum(torch.cuda.mem_get_info(gpu)[0] for gpu in gpus)
    if needed > free:
        raise SystemExit(
            f"Judge {name} needs about {needed / 2**30:.0f} GiB of GPU memory, but {free / 2**30:.0f} GiB are free on "
            f"{len(gpus)} GPU(s); take larger ones, or for device auto more of them, or choose a smaller judge."
        )


class HubJudge(Judge):
    """A judge whose `load` calls `load_pretrained`."""

    @classmethod
    def check(cls, path, config):
        check_judge(path, config)


def load_pretrained(path, config, model_class, *processor_classes):
    """The model and processors of a downloaded folder, the model on `config["device"]` in `config["dtype"]`.

    Raises SystemExit as `check_judge`, and where the folder is incomplete or damaged.
    """
    check_judge(path, config)
    try:
        model, loading = model_class.from_pretrained(
            path,
            dtype=config["dtype"],
            device_map=config["device"],
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
        processors = [processor.from_pretrained(path, local_files_only=True) for processor in processor_classes]
    except (OSError, ValueError, SafetensorError) as error:
        raise SystemExit(
            f"{path} is not a readable judge {config['name']}, {ADVICE}: {str(error).splitlines()[0]}"
        ) from error
    if loading["missing_keys"]:
        raise SystemExit(
            f"{path} is not a complete judge {config['name']}, {ADVICE}: {len(loading['missing_keys'])} weights miss."
        )
    return model.eval(), *processors
