import shutil

import pytest
import torch
from hypothesis import settings
from settings import FAMILIES

# The same examples on every machine, however slow it is.
settings.register_profile("replication", deadline=None, derandomize=True)
settings.load_profile("replication")


@pytest.fixture(scope="module")
def family():
    """The family of `checkpoint` and `model`; modules whose tests hold for all of them parametrise it."""
    return "janus"


@pytest.fixture(scope="module")  # of the module's own families
def checkpoint(family, tmp_path_factory):
    """A checkpoint of the embedded model with random weights, its head scaled up so that its distributions are far from flat."""
    from families import HEADS, UNTRAINED

    path = tmp_path_factory.mktemp(family)
    model = UNTRAINED[family].new_model(seed=0)
    with torch.no_grad():
        model.get_submodule(HEADS[family]).weight.mul_(2.5)
    model.save_pretrained(path)
    UNTRAINED[family].new_processor().save_pretrained(path)
    return path


@pytest.fixture
def model(checkpoint, family):
    from replication.models.interface import load_model

    torch.set_num_threads(1)
    return load_model(checkpoint, FAMILIES[family])


@pytest.fixture(scope="session")
def hub_checkpoint(tmp_path_factory):
    """A random checkpoint in the hub's layout of Janus-Pro."""
    from hub_checkpoints import new_hub_checkpoint

    path = tmp_path_factory.mktemp("hub")
    new_hub_checkpoint(path)
    return path


@pytest.fixture(scope="session")
def taught_checkpoint(hub_checkpoint, tmp_path_factory):
    """The same, which has learnt to write "The score is 1." or "The score is 0." about its images."""
    from hub_checkpoints import teach_to_answer

    torch.set_num_threads(1)
    path = shutil.copytree(hub_checkpoint, tmp_path_factory.mktemp("taught"), dirs_exist_ok=True)
    assert teach_to_answer(path) < 0.1
    return path
