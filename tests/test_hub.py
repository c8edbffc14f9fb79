"""Weights come from a hub, here a small one on loopback that is asked by huggingface_hub itself: at a commit, in parts that
are gone on from, and with one sentence for what goes wrong."""

import json
import os
import sys
import time

import huggingface_hub.constants
import pytest
from hub_checkpoints import HUB_MODEL, SHOWO_MODEL, new_hub_checkpoint, new_showo_checkpoint
from loopback import a_hub, serve

from replication import hub
from replication.models.checkpoint_checks import weight_files
from replication.models.interface import load_model
from replication.models.janus import JanusModel

REPOSITORY, COMMIT = "them/janus", "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """Files of the repository by name, with a pickle that nobody must fetch."""
    path = tmp_path_factory.mktemp("released")
    new_hub_checkpoint(path)
    return {file.name: file.read_bytes() for file in path.iterdir()} | {"pytorch_model.bin": b"pickle"}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # the library waits between its own attempts, too


@pytest.fixture
def at(monkeypatch):
    def use(address):
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)

    return use


def run_station(monkeypatch, tmp_path, revision=COMMIT):
    config = json.dumps({"source": "hub", "name": "janus", "repository": REPOSITORY, "revision": revision})
    output = tmp_path / "base=0"
    command = ["hub", "--config", config, "--downloads", str(tmp_path / "downloads"), "--output", str(output)]
    monkeypatch.setattr(sys, "argv", command)
    hub.main()
    return output


def test_a_checkpoint_is_downloaded_without_pickles_and_loads(released, at, monkeypatch, tmp_path):
    with serve(a_hub({(REPOSITORY, COMMIT): released})) as (address, asked):
        at(address)
        output = run_station(monkeypatch, tmp_path)
    names = {file.name for file in output.iterdir()}
    assert names == {name for name in released if name.endswith((".json", ".jinja", ".safetensors"))}
    assert not any("pytorch_model.bin" in path for path in asked)
    assert all((output / name).read_bytes() == released[name] for name in names)
    JanusModel.load(output, HUB_MODEL)
    at("http://127.0.0.1:9")  # nobody listens; what is here is not asked for again
    run_station(monkeypatch, tmp_path)


def test_the_parts_of_a_model_become_folders_of_it(at, monkeypatch, tmp_path):
    """Show-o lies in three repositories, of which the text tokenizer's has weights that nobody needs."""
    new_showo_checkpoint(tmp_path / "released")
    places, parts = {}, {}
    for name, part in {"": {}, **SHOWO_MODEL["parts"]}.items():
        files = {file.name: file.read_bytes() for file in (tmp_path / "released" / name).iterdir() if file.is_file()}
        repository = part.get("repository", SHOWO_MODEL["repository"])
        places[repository, COMMIT] = {**files, **({"model.safetensors": b"none"} if name == "phi-1_5" else {})}
        parts |= {name: {**part, "revision": COMMIT}} if name else {}
    config = {"name": "showo", "repository": SHOWO_MODEL["repository"], "revision": COMMIT, "parts": parts}
    command = ["hub", "--config", json.dumps(config), "--downloads", str(tmp_path / "downloads")]
    monkeypatch.setattr("sys.argv", [*command, "--output", str(tmp_path / "model")])
    with serve(a_hub(places)) as (address, asked):
        at(address)
        hub.main()
    assert not any(path.startswith("/microsoft/phi-1_5/resolve") and "safetensors" in path for path in asked)
    unified = load_model(tmp_path / "model", SHOWO_MODEL)
    assert unified.codes_per_image == 16
    config["parts"]["magvitv2"]["revision"] = "main"
    monkeypatch.setattr(
        "sys.argv", ["hub", "--config", json.dumps(config), *command[3:], "--output", str(tmp_path / "again")]
    )
    with pytest.raises(SystemExit, match="The revision of showlab/magvitv2 is 'main', but must be a commit"):
        hub.main()


def test_an_interrupted_download_goes_on_from_its_parts(released, at, monkeypatch, tmp_path):
    shard = min(name for name in released if name.endswith(".safetensors"))
    down = [True]

    def changed(path):
        return (400, {}, b"") if path.endswith(shard) and down[0] else None  # after 5xx the library itself waits long

    with serve(a_hub({(REPOSITORY, COMMIT): released}, changed)) as (address, asked):
        at(address)
        with pytest.raises(
            SystemExit, match="could not be downloaded in 4 attempts .*run again when there is a network"
        ):
            run_station(monkeypatch, tmp_path)
        assert not (tmp_path / "base=0").exists()
        down[0] = False
        before = len(asked)
        output = run_station(monkeypatch, tmp_path)
        again = {path.rsplit("/")[-1] for path in asked[before:] if "/resolve/" in path}
    assert shard in again and len(again) < 5  # of eleven files
    assert (output / shard).read_bytes() == released[shard]


def test_a_cut_off_file_is_deleted_and_a_rerun_repairs(released, at, monkeypatch, tmp_path):
    """The library takes a file of an unchanged time for whole, as after a crash of the disk's machine."""
    shard = min(name for name in released if name.endswith(".safetensors"))
    with serve(a_hub({(REPOSITORY, COMMIT): released})) as (address, _):
        at(address)
        run_station(monkeypatch, tmp_path)
        kept = weight_files(tmp_path / "downloads" / f"janus@{COMMIT}")[0]
        assert kept.name == shard
        times = kept.stat()
        kept.write_bytes(kept.read_bytes()[:-100])
        os.utime(kept, ns=(times.st_atime_ns, times.st_mtime_ns))
        with pytest.raises(SystemExit, match=f"^{shard} did not arrive whole in .*; run again"):
            run_station(monkeypatch, tmp_path)
        output = run_station(monkeypatch, tmp_path)
    assert (output / shard).read_bytes() == released[shard]


def test_a_commit_without_safetensors_is_not_asked_for_again_and_again(released, at, monkeypatch, tmp_path):
    others = {name: content for name, content in released.items() if ".safetensors" not in name}
    with serve(a_hub({(REPOSITORY, COMMIT): {**others, "pytorch_model.bin": b"a pickle"}})) as (address, _):
        at(address)
        with pytest.raises(SystemExit, match="^There is no model.safetensors in .*; name a commit that has one"):
            run_station(monkeypatch, tmp_path)
    assert not (tmp_path / "base=0").exists()


@pytest.mark.parametrize(
    ("code", "status", "sentence"),
    [
        (
            "RevisionNotFound",
            404,
            "them/janus has no commit 0123456789abcdef0123456789abcdef01234567; correct its rev",
        ),
        ("RepoNotFound", 404, "The hub has no public model them/janus; correct its name"),
        ("GatedRepo", 403, "them/janus is gated: accept its licence on the hub, log in with `hf auth login`"),
    ],
)
def test_what_the_hub_refuses_is_one_sentence(released, at, monkeypatch, tmp_path, code, status, sentence):
    refused = (status, {"X-Error-Code": code, "X-Error-Message": "no"}, b"")
    with serve(a_hub({(REPOSITORY, COMMIT): released}, lambda path: refused)) as (address, _):
        at(address)
        with pytest.raises(SystemExit) as stop:
            run_station(monkeypatch, tmp_path)
    assert str(stop.value).startswith(sentence) and "\n" not in str(stop.value)


def test_a_gated_model_whose_list_of_files_is_public_is_one_sentence(released, at, monkeypatch, tmp_path):
    def changed(path):
        return (403, {"X-Error-Code": "GatedRepo", "X-Error-Message": "no"}, b"") if "/resolve/" in path else None

    with serve(a_hub({(REPOSITORY, COMMIT): released}, changed)) as (address, _):
        at(address)
        with pytest.raises(SystemExit, match="^them/janus is gated"):
            run_station(monkeypatch, tmp_path)


def test_no_network_is_one_sentence(at, monkeypatch, tmp_path):
    at("http://127.0.0.1:9")  # nobody listens
    with pytest.raises(SystemExit, match="could not be downloaded in 4 attempts .*when there is a network") as stop:
        run_station(monkeypatch, tmp_path)
    assert "\n" not in str(stop.value)


@pytest.mark.parametrize("revision", [None, "main", "0123456"])
def test_a_revision_must_be_a_whole_commit(monkeypatch, tmp_path, revision):
    with pytest.raises(
        SystemExit, match="^The revision of them/janus is .* must be a commit, 40 hex.*prints the newest"
    ):
        run_station(monkeypatch, tmp_path, revision)
