"""How judges from the model hub are loaded."""

from pathlib import Path

import torch
from safetensors import SafetensorError


def load_pretrained(path, config, model_class, *processor_classes):
    """The model and processors of a downloaded folder, the model on `config["device"]` in `config["dtype"]`.

    Raises SystemExit with one sentence where the folder is missing, incomplete, damaged or of another revision, or there is
    no GPU where one is asked for.
    """
    path, name = Path(path), config["name"]
    advice = "delete the folder, so that it is downloaded again"
    if not (path / "config.json").exists():
        raise SystemExit(f"There is no judge {name} in {path}; download {config['repository']} to there first.")
    downloaded = path / ".cache" / "huggingface" / "download" / "config.json.metadata"  # the hub's client writes it
    if downloaded.exists():
        revision = downloaded.read_text().split()[0]
        if revision != config["revision"]:
            raise SystemExit(
                f"{path} holds revision {revision} of {config['repository']}, but judge {name} is pinned to "
                f"{config['revision']}; {advice}."
            )
    if config["device"] != "cpu" and not torch.cuda.is_available():
        raise SystemExit(
            f"Judge {name} is set to the device {config['device']}, but torch sees no GPU here; ask for one, or set it to cpu."
        )
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
        raise SystemExit(f"{path} is not a readable judge {name}, {advice}: {str(error).splitlines()[0]}") from error
    if loading["missing_keys"]:
        raise SystemExit(
            f"{path} is not a complete judge {name}, {advice}: {len(loading['missing_keys'])} weights miss."
        )
    return model.eval(), *processors
