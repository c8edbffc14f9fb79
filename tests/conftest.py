import pytest
import torch
from hypothesis import settings
from settings import MODEL

# The same examples on every machine, however slow it is.
settings.register_profile("replication", deadline=None, derandomize=True)
settings.load_profile("replication")


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """A checkpoint of the embedded model with random weights, its head scaled up so that its distributions are far from flat."""
    from replication.models.tiny import new_model, new_processor

    path = tmp_path_factory.mktemp("checkpoint")
    model = new_model(seed=0)
    with torch.no_grad():
        model.model.generation_head.vision_head.weight.mul_(2.5)
    model.save_pretrained(path)
    new_processor().save_pretrained(path)
    return path


@pytest.fixture
def model(checkpoint):
    from replication.models.janus import JanusModel

    torch.set_num_threads(1)
    return JanusModel.load(checkpoint, MODEL)
