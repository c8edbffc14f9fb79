import os
import shutil

# Processes beside one another, with a thread for every core each, are three times as slow.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"

import pytest
import torch
from filelock import FileLock
from hypothesis import settings
from settings import FAMILIES
from xdist.scheduler import LoadScopeScheduling

# The same examples on every machine, however slow it is.
settings.register_profile("replication", deadline=None, derandomize=True)
settings.load_profile("replication")


class SmokeInOneProcess(LoadScopeScheduling):
    """Tests go to whichever process is free, but those of a class to one."""

    def _split_scope(self, nodeid):
        file, *names = nodeid.split("::")
        return f"{file}::{names[0]}" if len(names) > 1 else nodeid


def pytest_xdist_make_scheduler(config, log):
    return SmokeInOneProcess(config, log)  # xdist's own loadgroup does not see its marks with pytest 9


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.get_closest_marker("slurm") is None)  # the longest begins first, beside the others


@pytest.fixture(scope="session")
def smoke(tmp_path_factory):
    """A copy of the repository in which the smoke preset has run from end to end, once for all processes of pytest."""
    from test_workflow import PRELOADED, SMOKE, copy_for_smoke, run

    place = tmp_path_factory.getbasetemp()
    place = place.parent if "PYTEST_XDIST_WORKER" in os.environ else place
    with FileLock(place / "smoke.lock"):
        if not (place / "smoke_results").exists():
            (place / "smoke").mkdir(exist_ok=True)
            done = run(copy_for_smoke(place / "smoke"), *PRELOADED, "snakemake", "--cores", "2", *SMOKE)
            if done.returncode:
                pytest.fail(f"The smoke preset failed:\n{done.stdout[-3000:]}", pytrace=False)
            shutil.copytree(place / "smoke/results/smoke", place / "smoke_results")
    return place / "smoke"


@pytest.fixture
def smoke_results(smoke):
    """The results of that run as they were when it ended, whatever tests have done to the copy since."""
    return smoke.with_name("smoke_results")


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
