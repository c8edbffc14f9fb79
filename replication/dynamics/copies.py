"""Station: the understanding branch of a model whose branches share only some parameters, the others being copies of their own.

Both copies start from the pre-trained model, and post-training trains what generation reads. So understanding is the pre-trained
model with the shared parameters as they were trained. With none shared it is the pre-trained model itself (`i_separate`), with
all shared the trained one (paper section 6, the shared kernel as a dial; the paper has no such model).
"""

import argparse
import json
from pathlib import Path

import torch

from replication.dynamics.gradients import trained_parameters
from replication.files import atomic_directory
from replication.models.interface import load_model


@torch.no_grad()
def share(pretrained, trained, shared_parameters):
    """Give the unified model `pretrained` the parameters of `trained` that match `shared_parameters`, a regular expression as
    `trained_modules` of post-training."""
    own, others = (trained_parameters(model, shared_parameters) for model in (pretrained, trained))
    for name, value in own.items():
        value.copy_(others[name])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=json.loads, required=True, help="canonical JSON of the copies section")
    parser.add_argument("--pretrained", type=Path, required=True, help="checkpoint folder of the base model")
    parser.add_argument("--trained", type=Path, required=True, help="checkpoint folder of the self-improved model")
    parser.add_argument("--output", type=Path, required=True, help="checkpoint folder")
    arguments = parser.parse_args()
    config = arguments.config
    pretrained, trained = (load_model(path, config["model"]) for path in (arguments.pretrained, arguments.trained))
    share(pretrained, trained, config["shared_parameters"])
    with atomic_directory(arguments.output) as folder:
        pretrained.save(folder)


if __name__ == "__main__":
    main()
