"""Prompt files come whole, verified and from pinned commits; what goes wrong is one sentence, and a rerun repairs it."""

import hashlib

import pytest
from loopback import serve

from replication import downloads
from replication.config import load_stage

FILES = {"color_train.txt": b"a red cat\r\n", "color_val.txt": b"a blue cat\r\n"}


def settings(address, **changes):
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}
    benchmark = {"repository": "them/bench", "commit": "c0ffee", "folder": "data", "sha256": sums}
    return {"benchmarks": {"bench": benchmark}, "mirror": None, "address": address} | changes


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(downloads, "FIRST_WAIT", 0)


def test_files_are_fetched_from_the_commit_and_written_as_they_are(tmp_path):
    with serve(lambda method, path, headers: (200, {}, FILES[path.rsplit("/")[-1]])) as (address, asked):
        downloads.download(settings(address + "/{repository}/{commit}/{path}"), tmp_path / "files")
    assert asked == [f"/them/bench/c0ffee/data/{name}" for name in FILES]
    assert {file.name: file.read_bytes() for file in (tmp_path / "files" / "bench").iterdir()} == FILES


def test_faults_of_server_and_network_are_tried_again(tmp_path):
    faults = [(503, {}, b""), (200, {"Content-Length": "99"}, b"a red"), (429, {}, b"")]

    def answer(method, path, headers):
        return faults.pop() if faults else (200, {}, FILES[path.rsplit("/")[-1]])

    with serve(answer) as (address, asked):
        downloads.download(settings(address + "/{path}"), tmp_path / "files")
    assert len(asked) == 3 + len(FILES)
    assert (tmp_path / "files" / "bench" / "color_train.txt").read_bytes() == FILES["color_train.txt"]


def test_a_missing_file_is_one_sentence_at_once(tmp_path):
    sentence = pytest.raises(SystemExit, match="color_train.txt cannot be had: HTTP Error 404.*check the commit")
    with serve(lambda method, path, headers: (404, {}, b"")) as (address, asked), sentence as stop:
        downloads.download(settings(address + "/{path}"), tmp_path / "files")
    assert len(asked) == 1 and "\n" not in str(stop.value) and not any(tmp_path.iterdir())


def test_no_network_is_one_sentence(tmp_path):
    with serve(lambda *request: (200, {}, b"")) as (address, _):
        pass  # whose port nobody listens at any more
    with pytest.raises(SystemExit, match="in 4 attempts .*run again when there is a network.*prompts.mirror") as stop:
        downloads.download(settings(address + "/{path}"), tmp_path / "files")
    assert "\n" not in str(stop.value) and not any(tmp_path.iterdir())


def test_a_wrong_checksum_leaves_nothing_and_a_rerun_repairs(tmp_path):
    served = dict(FILES, **{"color_val.txt": b"a blue dog\r\n"})
    with serve(lambda method, path, headers: (200, {}, served[path.rsplit("/")[-1]])) as (address, _):
        config = settings(address + "/{path}")
        with pytest.raises(SystemExit, match="^bench/color_val.txt has the SHA-256 .* and not .*run again"):
            downloads.download(config, tmp_path / "files")
        assert not any(tmp_path.iterdir())
        served.update(FILES)
        downloads.download(config, tmp_path / "files")
    assert (tmp_path / "files" / "bench" / "color_val.txt").read_bytes() == FILES["color_val.txt"]


def test_a_mirror_is_verified_in_the_same_way(tmp_path):
    mirror = tmp_path / "mirror" / "bench"
    mirror.mkdir(parents=True)
    config = settings("nowhere", mirror=str(mirror.parent))
    with pytest.raises(SystemExit, match="color_train.txt is missing in the folder prompts.mirror; add it"):
        downloads.download(config, tmp_path / "files")
    for name, content in FILES.items():
        (mirror / name).write_bytes(content)
    downloads.download(config, tmp_path / "files")
    (mirror / "color_train.txt").write_bytes(b"a red cat\n")
    with pytest.raises(SystemExit, match="^bench/color_train.txt has the SHA-256"):
        downloads.download(config, tmp_path / "files")
    assert (tmp_path / "files" / "bench" / "color_train.txt").read_bytes() == FILES["color_train.txt"]


def test_the_preset_pins_commits_and_checksums():
    config = load_stage("prompts", "paper")
    assert set(config["benchmarks"]) == {"t2i_compbench", "geneval"}
    for benchmark in config["benchmarks"].values():
        assert len(benchmark["commit"]) == 40 and all(len(digest) == 64 for digest in benchmark["sha256"].values())
    names = set(config["benchmarks"]["t2i_compbench"]["sha256"])
    assert names >= {f"{subtask}_train.txt" for subtask in config["train_subtasks"]}
    assert names >= {f"{subtask}_val.txt" for subtask in config["evaluation_subtasks"]}
