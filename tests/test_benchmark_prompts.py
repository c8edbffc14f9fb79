"""T2I-CompBench and GenEval become prompt tables, on hand-made files and, where they are, on the real ones."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from settings import REAL_PROMPTS

from replication.benchmark_prompts import benchmark_prompts, leaks, read_geneval, read_t2i_compbench
from replication.config import canonical, load_stage
from replication.downloads import download

needs_real = pytest.mark.skipif(REAL_PROMPTS is None, reason="the benchmarks' files are not beside the repository")
BENCH = {"tag": "single_object", "include": [{"class": "bench", "count": 1}], "prompt": "a photo of a bench"}
CUPS = {"tag": "counting", "include": [{"class": "cup", "count": 2}], "prompt": "a photo of two cups"}


@pytest.fixture
def files(tmp_path):
    """Two subtasks; "The Cat." leaks within a subtask, "a dog" into another one, "a photo of a bench" into GenEval."""
    texts = {
        "t2i_compbench/color_train.txt": "a red cup\r\nThe  cat\r\na photo of a bench\r\na blue cup",
        "t2i_compbench/color_val.txt": "the Cat.\r\na green cup\r\n",
        "t2i_compbench/spatial_train.txt": "a dog\na cow left of a cup\na café on the bottom of a hill\n\n",
        "t2i_compbench/spatial_val.txt": "a cup left of a cow\n",
        "t2i_compbench/shape_val.txt": "a dog\n",
        "geneval/evaluation_metadata.jsonl": f"{json.dumps(BENCH)}\n{json.dumps(CUPS)}\n",
    }
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(text.encode())
    return tmp_path


CONFIG = {
    "train_subtasks": ["color", "spatial"],
    "evaluation_subtasks": ["color", "spatial", "shape"],
    "train_prompts": None,
    "evaluation_prompts": None,
}


def test_lines_become_prompts():
    table = read_t2i_compbench("a red cup\r\n a café \r\n\r\nThe end.", "color")
    assert list(table["prompt"]) == ["a red cup", "a café", "The end."]
    assert set(table["subtask"]) == {"color"} and set(table["stratum"]) == {"medium"}
    assert set(table["benchmark"]) == {"t2i_compbench"} and set(table["metadata"]) == {"{}"}
    with pytest.raises(SystemExit, match="the subtask color has no prompts"):
        read_t2i_compbench("\r\n", "color")


def test_geneval_keeps_what_its_detector_needs():
    table = read_geneval(f"{json.dumps(BENCH)}\n{json.dumps(CUPS)}\n")
    assert list(table["prompt"]) == ["a photo of a bench", "a photo of two cups"]
    assert list(table["subtask"]) == ["single_object", "counting"] and set(table["stratum"]) == {"easy"}
    assert [json.loads(text) for text in table["metadata"]] == [BENCH, CUPS]


@pytest.mark.parametrize("line", ["not JSON", "[1]", '{"prompt": "a cup"}', "7"])
def test_a_line_that_is_no_metadata_is_one_sentence(line):
    with pytest.raises(SystemExit, match="^Line 2 of GenEval's metadata is not an object with prompt and tag") as stop:
        read_geneval(f"{json.dumps(BENCH)}\n{line}\n")
    assert "\n" not in str(stop.value)


def test_prompts_of_both_splits_are_listed_and_not_trained_on(files):
    train, evaluation, leaked = benchmark_prompts(files, CONFIG)
    assert list(train["prompt"]) == ["a red cup", "a blue cup", "a cow left of a cup", "a café on the bottom of a hill"]
    assert list(train["prompt_id"]) == [0, 1, 2, 3] and list(evaluation["prompt_id"]) == list(range(6))
    assert leaked.drop(columns="train_row").values.tolist() == [
        ["The  cat", "color", "the Cat.", "color"],
        ["a photo of a bench", "color", "a photo of a bench", "single_object"],
        ["a dog", "spatial", "a dog", "shape"],
    ]


def test_limits_take_the_first_of_each_subtask_after_the_leak_check(files):
    train, evaluation, leaked = benchmark_prompts(files, CONFIG | {"train_prompts": 1, "evaluation_prompts": 1})
    assert list(train["prompt"]) == ["a red cup", "a cow left of a cup"]  # "a dog" came first, but leaks
    assert list(evaluation["subtask"]) == ["color", "spatial", "shape", "single_object", "counting"]
    assert len(leaked) == 3


def test_a_prompt_that_leaks_twice_is_listed_twice_and_dropped_once():
    train = pd.DataFrame({"prompt": ["a cup", "a cow"], "subtask": "color"})
    evaluation = pd.DataFrame({"prompt": ["A cup.", "a cup"], "subtask": ["color", "shape"]})
    assert list(leaks(train, evaluation)["train_row"]) == [0, 0]


def test_the_station_writes_what_the_others_read(files, tmp_path):
    output = tmp_path / "prompts"
    command = [sys.executable, "-m", "replication.benchmark_prompts", "--config", canonical(CONFIG)]
    subprocess.run([*command, "--files", files, "--output", output], check=True)
    train, probe = pd.read_csv(output / "train.csv"), pd.read_csv(output / "probe.csv")
    assert list(train)[:4] == ["prompt_id", "prompt", "subtask", "stratum"] and train["metadata"].notna().all()
    assert list(probe) == ["probe_id", "prompt", "subtask", "stratum", "label"] and probe.empty
    assert np.load(output / "probe_images.npy", allow_pickle=False).shape == (0, 384, 384, 3)
    assert len(pd.read_csv(output / "leaks.csv")) == 3


@needs_real
def test_the_real_files_give_the_papers_numbers(tmp_path):
    config = load_stage("prompts", "paper", overrides=(f"prompts.mirror={REAL_PROMPTS}",))
    download(config, tmp_path / "files")  # checksums and all
    train, evaluation, leaked = benchmark_prompts(tmp_path / "files", config)
    counts = evaluation.groupby(["benchmark", "subtask"]).size()
    assert (counts["t2i_compbench"] == 300).all() and len(counts["t2i_compbench"]) == 6
    assert counts["geneval"].to_dict() == {  # paper section 1.4
        "single_object": 80,
        "two_object": 99,
        "counting": 80,
        "colors": 94,
        "position": 100,
        "color_attr": 100,
    }
    assert leaked["subtask"].value_counts().to_dict() == {"shape": 4, "spatial": 2}
    assert train.groupby("subtask").size().to_dict() == {
        subtask: 700 - {"shape": 4, "spatial": 2}.get(subtask, 0) for subtask in config["train_subtasks"]
    }
    assert not evaluation["prompt"].duplicated().any()


@needs_real
def test_geneval_prompts_are_those_of_its_own_list():
    table = read_geneval((REAL_PROMPTS / "geneval" / "evaluation_metadata.jsonl").read_text())
    assert list(table["prompt"]) == (REAL_PROMPTS / "geneval" / "generation_prompts.txt").read_text().splitlines()
