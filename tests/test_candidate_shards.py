"""Candidates drawn in shards, each by a job of its own, against those that one job draws: the same bytes."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from settings import MODEL

from replication import candidates
from replication.candidate_shards import merge_shards
from replication.prompts import prompt_table

CONFIG = {"model": MODEL, "candidates_per_prompt": 3, "guidance_scale": 1.0, "temperature": 1.0, "batch_size": 5}
CONFIG["nonsense_share"] = 0.5
CONFIG |= {"judge": "oracle", "verdict": "likelier", "threshold": 0.0}


@pytest.fixture
def draw(checkpoint, tmp_path, monkeypatch):
    """The station as it is called by hand: its arguments, the folder that it wrote."""
    torch.set_num_threads(1)

    def station(prompts, name, *more):
        prompts.to_csv(tmp_path / "prompts.csv", index=False)
        command = ["candidates", "--config", json.dumps(CONFIG), "--seed", "0", "--model", str(checkpoint)]
        command += ["--prompts", str(tmp_path / "prompts.csv"), "--output", str(tmp_path / name), *more]
        monkeypatch.setattr(sys, "argv", command)
        candidates.main()
        return tmp_path / name

    return station


def contents(folder):
    return [(folder / name).read_bytes() for name in ("candidates.csv", "codes.npy")]


def prompts():
    """18 prompts of many lengths, not in the order of their numbers: 54 images in 11 batches, the last of 4."""
    return prompt_table(2, held_out=False, seed=0).sample(frac=1, random_state=1)


@pytest.mark.parametrize("shards", [2, 7])
def test_shards_together_have_the_bytes_of_one_job(draw, tmp_path, shards):
    whole = draw(prompts(), "whole")
    parts = [draw(prompts(), f"{part}", "--shard", f"{part}", f"{shards}") for part in range(shards)]
    rows = [pd.read_csv(part / "candidates.csv")["row"] for part in parts]
    assert sorted(pd.concat(rows)) == list(range(54)) and min(map(len, rows)) >= 5
    merge_shards(parts[::-1], tmp_path / "merged")
    assert contents(tmp_path / "merged") == contents(whole)


def test_the_last_digits_depend_on_the_batch_and_images_do_not(draw, monkeypatch):
    """Why shards are whole batches."""
    whole = draw(prompts(), "whole")
    monkeypatch.setitem(CONFIG, "batch_size", 7)
    other = draw(prompts(), "other")
    assert contents(whole)[1] == contents(other)[1] and contents(whole)[0] != contents(other)[0]


@pytest.mark.parametrize("number", [0, 3])
def test_shards_without_a_batch_add_nothing(draw, tmp_path, number):
    few = prompts().iloc[:number]  # no batch at all, or two for five shards
    whole = draw(few, "whole")
    parts = [draw(few, f"{part}", "--shard", f"{part}", "5") for part in range(5)]
    merge_shards(parts, tmp_path / "merged")
    assert contents(tmp_path / "merged") == contents(whole)


def write_shard(folder, rows, table, codes):
    folder.mkdir()
    table.iloc[rows].to_csv(folder / "candidates.csv", index_label="row")
    np.save(folder / "codes.npy", codes[rows])
    (folder / "provenance.json").write_text("{}")
    return folder


def test_what_models_write_comes_through_as_it_is(tmp_path):
    answers = ["", "NA", 'a "quoted", answer', "two\nlines", "two\r\nlines", " 007 ", "1e5", "ein Ä"]
    table = pd.DataFrame({"answer": answers, "log_prob": np.random.default_rng(0).normal(size=8) * 1e-5})
    codes = np.arange(16, dtype=np.int16).reshape(8, 2)
    parts = [write_shard(tmp_path / f"{i}", rows, table, codes) for i, rows in enumerate(([6, 1, 2], [0, 7, 3, 5, 4]))]
    merge_shards(parts, tmp_path / "merged")
    table.to_csv(tmp_path / "whole.csv", index=False)
    assert (tmp_path / "merged/candidates.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    np.testing.assert_array_equal(np.load(tmp_path / "merged/codes.npy"), codes)


@pytest.mark.parametrize("second", [[1, 2], [3, 4], []], ids=["twice", "missing", "lost"])
def test_shards_that_do_not_fit_are_one_sentence(tmp_path, second):
    table, codes = pd.DataFrame({"prompt_id": range(5)}), np.zeros((5, 2), np.int16)
    first = [0, 1] if second else [1, 2]
    parts = [write_shard(tmp_path / "0", first, table, codes), write_shard(tmp_path / "1", second, table, codes)]
    with pytest.raises(SystemExit, match="are not the 2 shards of one drawing; remove and draw them again"):
        merge_shards(parts, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_a_stopped_shard_leaves_nothing(draw, monkeypatch):
    """Killed between its two files, and started again: whole output or none, and the same bytes."""
    save = np.save

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(candidates.np, "save", stop)
    with pytest.raises(KeyboardInterrupt):
        draw(prompts(), "part", "--shard", "1", "7")
    folder = Path(sys.argv[sys.argv.index("--output") + 1])
    assert not folder.exists()
    monkeypatch.setattr(candidates.np, "save", save)
    assert contents(draw(prompts(), "part", "--shard", "1", "7")) == contents(
        draw(prompts(), "again", "--shard", "1", "7")
    )
