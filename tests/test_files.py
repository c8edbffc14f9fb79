"""Outputs are whole or absent, sources are followed, provenance is stable."""

import json
import subprocess

import numpy as np
import pytest

from replication import provenance, sources
from replication.files import atomic_directory, atomic_file
from replication.provenance import write_provenance
from replication.sources import ROOT, source_files


def test_a_file_appears_only_when_it_is_complete(tmp_path):
    path = tmp_path / "run" / "metrics.csv"
    with atomic_file(path) as partial:
        partial.write_text("value\n1\n")
        assert partial.suffix == ".csv"
        assert not path.exists()
    assert path.read_text() == "value\n1\n"
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_block_leaves_the_old_file(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("old")
    with pytest.raises(KeyError), atomic_file(path) as partial:
        partial.write_text("half")
        raise KeyError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_directory_replaces_the_old_one_as_a_whole(tmp_path):
    path = tmp_path / "model"
    path.mkdir()
    (path / "stale.json").write_text("{}")
    with atomic_directory(path) as partial:
        (partial / "config.json").write_text("{}")
    assert [file.name for file in path.iterdir()] == ["config.json"]
    with pytest.raises(KeyError), atomic_directory(path) as partial:
        raise KeyError
    assert [file.name for file in path.iterdir()] == ["config.json"]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "write", [lambda disk: disk.write(bytes(100_000)), lambda disk: np.save(disk, np.zeros(100_000))]
)
def test_a_full_disk_is_one_sentence(tmp_path, write):
    """/dev/full is a disk without room; it is opened in place, never renamed over."""
    path = tmp_path / "images.npy"
    sentence = pytest.raises(SystemExit, match="^The disk is full: .*images.npy could not be written; free some space")
    with sentence, atomic_file(path), open("/dev/full", "wb") as disk:
        write(disk)
    assert list(tmp_path.iterdir()) == []


def test_sources_follow_imports_but_not_bookkeeping():
    files = source_files("replication.provenance")
    assert files == ["replication/provenance.py"]
    prompts = source_files("replication.prompts")
    assert {"replication/prompts.py", "replication/scenes/renderer.py"} <= set(prompts)
    assert "replication/files.py" not in prompts
    assert all((ROOT / file).is_file() for file in prompts)


def test_sources_follow_relative_imports(tmp_path, monkeypatch):
    own = {
        "__init__": "",
        "judge": "from . import words\nfrom .rules import accept\n",
        "words": "",
        "rules": "from .words import yes\n",
    }
    for name, text in own.items():
        (tmp_path / "own").mkdir(exist_ok=True)
        (tmp_path / f"own/{name}.py").write_text(text)
    monkeypatch.setattr(sources, "ROOT", tmp_path)
    sources._imports.cache_clear()
    assert source_files("own.judge") == ["own/judge.py", "own/rules.py", "own/words.py"]
    sources._imports.cache_clear()


def test_only_a_change_of_code_is_uncommitted(tmp_path, monkeypatch):
    files = [
        tmp_path / name for name in ("results/reference/full/claims.csv", "paper_figures/a.csv", "replication/a.py")
    ]
    for file in files:
        file.parent.mkdir(parents=True)
        file.write_text("before")
    git = ["git", "-C", tmp_path, "-c", "user.name=n", "-c", "user.email=e"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "all"]):
        subprocess.run([*git, *command], check=True)
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "replication/provenance.py"))
    for file, uncommitted in zip(files, (False, False, True), strict=True):
        file.write_text("after")
        write_provenance(tmp_path / "made.json", {"model": {"device": "cpu"}})
        assert json.loads((tmp_path / "made.json").read_text())["uncommitted_changes"] is uncommitted


def test_provenance_is_the_same_for_the_same_run(tmp_path):
    for name in ("first.json", "second.json"):
        write_provenance(tmp_path / name, {"beta": 0.1, "model": {"device": "cuda"}}, seed=3)
    first, second = ((tmp_path / name).read_text() for name in ("first.json", "second.json"))
    assert first == second
    record = json.loads(first)
    assert record["config"] == {"beta": 0.1, "model": {"device": "cuda"}} and record["device"] == "cuda"
    assert record["seed"] == 3
    assert record["packages"]["numpy"] == np.__version__
    assert str(tmp_path) not in first
