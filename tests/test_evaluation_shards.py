"""Evaluations drawn and judged in shards, each by a job of its own, against those of one job: the same bytes of every file."""

import json
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from settings import MODEL

from replication import evaluation, evaluation_shards
from replication.judges import oracle
from replication.prompts import probe_set, prompt_table

CONFIG = {"model": {**MODEL, "name": "embedded"}, "guidance_scale": 1.0, "temperature": 1.0, "batch_size": 8}
CONFIG |= {"judge": {"name": "oracle"}, "verdict": "likelier", "threshold": 0.0, "images_per_prompt": 3}
CONFIG |= {"preset": "smoke", "experiment": "baseline", "method": "pretrained"}


@pytest.fixture
def prompts(tmp_path):
    """18 prompts not in the order of their numbers, so 54 images in 7 batches; and 18 scenes in 3."""
    folder = tmp_path / "prompts"
    folder.mkdir()
    table = prompt_table(2, held_out=True, seed=0).sample(frac=1, random_state=1)
    table.to_csv(folder / "evaluation.csv", index=False)
    probe, images = probe_set(1, 0)
    probe.to_csv(folder / "probe.csv", index=False)
    np.save(folder / "probe_images.npy", images)
    return folder


@pytest.fixture
def call(checkpoint, prompts, monkeypatch):
    """A station as it is called by hand: its arguments, the files that it wrote."""
    torch.set_num_threads(1)

    def station(module, output, *more, **changes):
        words = ["--config", json.dumps({**CONFIG, **changes}), "--seed", "0", "--model", str(checkpoint), *more]
        monkeypatch.setattr(sys, "argv", [module.__name__, *map(str, words), "--output", str(output)])
        module.main()
        return {path.name: path.read_bytes() for path in output.iterdir()}

    return station


def in_shards(call, folder, number, drawing, merging, **changes):
    parts = [folder / f"{part}-of-{number}" for part in range(number)]
    for part, output in enumerate(parts):
        call(evaluation, output, *drawing, "--shard", part, number, **changes)
    return parts, call(evaluation_shards, folder / "merged", *merging, "--shards", *parts[::-1], **changes)


def test_shards_together_have_the_bytes_of_one_job(call, checkpoint, prompts, tmp_path):
    """The pre-trained model; and then one that is measured beside it, of whose images and scenes most shards have none."""
    drawing = ["--prompts", prompts, "--judge", checkpoint]
    whole = call(evaluation, tmp_path / "baseline", *drawing)
    assert len(whole) == 7 and {"metrics.csv", "images.npy", "claims_registered.json"} < whole.keys()
    parts, together = in_shards(call, tmp_path / "before", 7, drawing, [])
    assert together == whole
    rows = [len(pd.read_csv(part / "images.csv")) for part in parts]
    assert sorted(rows) == [6] + [8] * 6
    assert not (parts[0] / "metrics.csv").exists()

    registered = parts[3] / "claims_registered.json"  # as if claims had been edited while the shards were drawn
    digests = json.loads(registered.read_text())
    late, edited = sorted(digests)[:2]
    registered.write_text(json.dumps({**digests, edited: "another", "new": "digest"} | {late: None}))
    merged = call(evaluation_shards, tmp_path / "again", "--shards", *parts)["claims_registered.json"]
    assert json.loads(merged) == {name: digest for name, digest in digests.items() if name not in (late, edited)}

    changes = {"guidance_scale": 2.0, "images_per_prompt": 1, "method": "sft", "experiment": "sft"}
    before = ["--baseline", tmp_path / "baseline"]
    whole = call(evaluation, tmp_path / "sft", *drawing, *before, **changes)
    assert len(whole) == 8 and "pretrained_verdicts.csv" in whole
    assert in_shards(call, tmp_path / "after", 7, [*drawing, *before], before, **changes)[1] == whole


def test_pictures_are_those_that_were_judged(call, prompts, tmp_path):
    """The first image of each prompt, in the order of the table."""
    call(evaluation, tmp_path / "baseline", "--prompts", prompts)
    rows = pd.read_csv(tmp_path / "baseline/images.csv")
    images = np.load(tmp_path / "baseline/images.npy")
    first = rows[rows["image"] == 0]
    assert len(images) == len(first) == 18
    np.testing.assert_array_equal(oracle.judge(images, first["prompt"]), first["truth"] == 1)


def test_written_answers_come_through(call, prompts, tmp_path):
    changes = {"verdict": "written", "answer_tokens": 3}
    whole = call(evaluation, tmp_path / "baseline", "--prompts", prompts, **changes)
    _, together = in_shards(call, tmp_path / "parts", 3, ["--prompts", prompts], [], **changes)
    assert together == whole and b"answer,parsed" in whole["images.csv"] and b"unparsed" in whole["metrics.csv"]


def test_a_shard_that_is_missing_is_one_sentence(call, prompts, tmp_path):
    for part in (0, 2):
        call(evaluation, tmp_path / f"{part}", "--prompts", prompts, "--shard", part, 3)
    with pytest.raises(SystemExit, match="are not the 2 shards of one drawing; remove and draw them again"):
        call(evaluation_shards, tmp_path / "merged", "--shards", tmp_path / "0", tmp_path / "2")
    assert not (tmp_path / "merged").exists()
