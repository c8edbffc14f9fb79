"""Evaluation where no oracle knows the truth: judges from the hub, benchmarks' scores, no labelled scenes; and the embedded
evaluation as it was before there were any."""

import hashlib
import json
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from settings import MODEL
from small_judges import blip, clip, owlv2, qwen
from synthetic_runs import frames_of_run
from test_judges import CONFIG as JUDGE

from replication import evaluation, evaluation_shards, metrics
from replication.candidates import draw_images
from replication.config import _compose
from replication.corruption import corrupt_verdicts
from replication.curriculum import counts_of
from replication.judges.blip_vqa import BlipVQA
from replication.judges.detector import Detector
from replication.judges.qwen2_5_vl import Qwen25VL
from replication.supervision import quality

IDENTITY = {"preset": "paper", "experiment": "baseline", "model": "m", "method": "pretrained", "seed": 0}
DRAWING = {"guidance_scale": 1.0, "temperature": 1.0, "verdict": "likelier", "threshold": 0.0, "batch_size": 4}
PROMPTS = pd.DataFrame(
    [
        ("t2i_compbench", "color", "medium", "a green bench and a red bowl", "{}"),
        ("t2i_compbench", "spatial", "medium", "a cup next to a bowl", "{}"),
        ("t2i_compbench", "spatial", "medium", "a bench on the left of a cup", "{}"),
        (
            "geneval",
            "single_object",
            "easy",
            "a photo of a bench",
            json.dumps({"tag": "single_object", "include": [{"class": "bench", "count": 1}]}),
        ),
    ],
    columns=["benchmark", "subtask", "stratum", "prompt", "metadata"],
)
PROMPTS.insert(0, "prompt_id", range(4))
EMBEDDED = pd.DataFrame(
    {"prompt_id": [3, 7], "prompt": ["an image of a triangle", "an image of a square"], "subtask": "single_object"}
).assign(stratum="easy")
NO_SCENES = pd.DataFrame(columns=["probe_id", "prompt", "subtask", "stratum", "label"])


@pytest.mark.parametrize(
    ("method", "seed", "digest"),
    [
        ("pretrained", 0, "33c2cedf0c5ed496ec190f44ce8efbc379b5262193fd70c331d522e07873283b"),
        ("sft", 1, "e19be80534e55f2f0bcf3bbcb5213c4fff4e1be13789ee79e5f22710b6d49120"),
    ],
)
def test_metrics_of_the_embedded_world_are_the_same_bytes_as_before(method, seed, digest):
    """SHA-256 of metrics.csv of invented runs, taken before judges of the hub came."""
    text = metrics.summarise(*frames_of_run(method, seed, 6)).to_csv(index=False)
    assert hashlib.sha256(text.encode()).hexdigest() == digest


def judged_images():
    rows = PROMPTS.assign(image=0, verdict=[1, 0, 0, 1], truth=[1, 0, 1, 0], truth_parsed=[1, 0, 1, 1])
    return rows.assign(score=[0.5, 0.25, 0.75, 1.0])


def test_scores_are_generation_and_verdicts_of_the_judge_all_else():
    images = judged_images()
    old = pd.DataFrame({"subtask": ["spatial"] * 2, "truth": [0, 1], "before": [1, 1], "after": [0, 1]})
    table = metrics.summarise(images, NO_SCENES.assign(verdict=[]), old, IDENTITY, "qwen2_5_vl_72b")
    assert not table.duplicated(["subtask", "metric"]).any()
    assert set(table["judge"]) == {"none", "benchmark", "qwen2_5_vl_72b"}
    cell = table.set_index(["subtask", "metric"])
    expected = {
        ("spatial", "generation"): (0.5, 2),
        ("spatial", "accepted_by_judge"): (0.5, 2),
        ("spatial", "weak_generation"): (0.5, 2),
        ("spatial", "judge_unparsed_n"): (0.5, 2),
        ("spatial", "understanding_win_rate"): (1.0, 1),
        ("spatial", "triple_010"): (1, 2),
        ("medium", "generation"): (0.5, 3),
        ("overall", "generation"): (pytest.approx((0.5 + 0.5 + 1) / 3), 4),
        ("overall_t2i_compbench", "generation"): (0.5, 3),
        ("overall_geneval", "generation"): (1.0, 1),
        ("overall_geneval", "accepted_by_judge"): (0.0, 1),
    }
    for place, value in expected.items():
        assert tuple(cell.loc[place, ["value", "n"]]) == value, place
    assert cell.loc[("overall", "generation"), "judge"] == "benchmark"
    assert cell.loc[("overall", "weak_generation"), "judge"] == "qwen2_5_vl_72b"
    assert (
        np.isnan(cell.loc[("overall", "balanced_accuracy"), "value"])
        and cell.loc[("overall", "balanced_accuracy"), "n"] == 0
    )


def test_candidates_that_no_oracle_judges_have_no_truth_and_are_used_all_the_same(model):
    known, codes = draw_images(model, EMBEDDED, 2, "candidate", "candidates", 0, DRAWING)
    rows, same = draw_images(model, EMBEDDED, 2, "candidate", "candidates", 0, DRAWING, truth_known=False)
    np.testing.assert_array_equal(codes, same)
    pd.testing.assert_frame_equal(rows, known.drop(columns="truth"))
    none, _ = draw_images(model, EMBEDDED[:0], 2, "candidate", "candidates", 0, DRAWING, truth_known=False)
    assert list(none) == list(rows)
    samples = pd.DataFrame({"prompt_id": rows["prompt_id"][:1], "subtask": rows["subtask"][:1], "chosen": [0]})
    with_truth, without = quality(known, samples), quality(rows, samples)
    assert list(without["metric"]) == [name for name in with_truth["metric"] if not name.startswith("precision")]
    pool = pd.DataFrame({"unlocked": [0]})
    assert counts_of(1, rows, samples, samples, pool)["images_right"] is None
    with pytest.raises(ValueError, match="No judge knows the truth about these candidates"):
        corrupt_verdicts(rows, "oracle", None, np.random.default_rng(0))


@pytest.mark.parametrize("size", ["7b", "32b", "72b"])
def test_every_judge_composes_with_the_papers_question_and_pinned_models(size):
    name = f"qwen2_5_vl_{size}"
    config = _compose("experiment", preset="smoke", base_model="shipped", experiment="baseline", judge=name)
    judge = config.evaluation.judge
    assert config.candidates.judge == judge.name == judge.verdict.name == name
    assert judge.verdict.repository == f"Qwen/Qwen2.5-VL-{size.upper()}-Instruct"
    assert judge.verdict.question.format(prompt="a cup").count("Does this original image describe a cup? If it") == 1
    blocks = [block for block in judge.values() if hasattr(block, "revision")]
    assert len(blocks) == 5 and all(len(block.revision) == 40 for block in blocks)


@pytest.fixture
def run(checkpoint, tmp_path, monkeypatch):
    """Evaluation with the embedded model's architecture and small judges, as the workflow calls it."""
    torch.set_num_threads(1)
    prompts, hub = tmp_path / "prompts", tmp_path / "hub"
    prompts.mkdir()
    PROMPTS.to_csv(prompts / "evaluation.csv", index=False)
    NO_SCENES.to_csv(prompts / "probe.csv", index=False)
    np.save(prompts / "probe_images.npy", np.empty((0, 24, 24, 3), np.uint8), allow_pickle=False)
    makers = {"qwen2_5_vl_7b": qwen, "blip_vqa": blip, "clip_score": clip, "clip_colours": clip, "detector": owlv2}
    folders = [str(make(hub / name)) for name, make in makers.items()]
    judge = {**JUDGE, "verdict": {**JUDGE["verdict"], "answer_tokens": 2}}
    config = {**DRAWING, **IDENTITY, "model": {**MODEL, "name": "embedded"}, "images_per_prompt": 1, "judge": judge}

    def call(output, *arguments, batch_size=4):
        config["batch_size"] = batch_size
        words = ["evaluation", "--config", json.dumps(config), "--seed", "0", "--model", str(checkpoint)]
        words += ["--prompts", str(prompts), "--output", str(output), "--judge", "--judge-models", *folders, *arguments]
        monkeypatch.setattr(sys, "argv", words)
        evaluation.main()
        return {file.name: file.read_bytes() for file in output.iterdir() if file.suffix in (".csv", ".npy")}

    return call


def test_an_evaluation_judged_by_the_hub_ends_resumes_and_serves_as_baseline(run, tmp_path, monkeypatch):
    first = run(tmp_path / "baseline" / "evaluation")
    images = pd.read_csv(tmp_path / "baseline" / "evaluation" / "images.csv")
    assert {"truth", "truth_parsed", "score", "verdict", "benchmark"} <= set(images) and len(images) == 4
    cached = {path.name: path.read_bytes() for path in (tmp_path / "baseline" / "judge_answers").iterdir()}
    assert {name.removesuffix(".jsonl"): text.count(b"\n") for name, text in cached.items()} == {
        "qwen2_5_vl_7b": 4,
        "blip_vqa": 1,
        "detector": 3,
    }
    verdicts = tmp_path / "baseline" / "judge_answers" / "qwen2_5_vl_7b.jsonl"
    verdicts.write_bytes(cached["qwen2_5_vl_7b.jsonl"][:-7])  # killed while the last answer was written
    assert run(tmp_path / "baseline" / "evaluation") == first
    assert verdicts.read_bytes() == cached["qwen2_5_vl_7b.jsonl"]

    monkeypatch.setattr(Qwen25VL, "answers", lambda self, images, rows: ["The score is 1."] * len(images))
    run(tmp_path / "sft" / "evaluation", "--baseline", str(tmp_path / "baseline" / "evaluation"))
    old = pd.read_csv(tmp_path / "sft" / "evaluation" / "pretrained_verdicts.csv")
    assert (old["truth"] == images["truth"]).all() and (old["before"] == old["after"]).all()
    table = pd.read_csv(tmp_path / "sft" / "evaluation" / "metrics.csv").set_index(["subtask", "metric"])
    assert table.loc[("overall", "accepted_by_judge"), "value"] == 1
    assert table.loc[("overall_geneval", "generation"), "judge"] == "benchmark"


def merged(run, tmp_path, monkeypatch, number, *before):
    """The files of an evaluation in so many shards, put together as the workflow does it."""
    folders = [tmp_path / f"shard={part}-of-{number}" / "evaluation" for part in range(number)]
    for part, folder in enumerate(folders):
        run(folder, "--shard", str(part), str(number), *before, batch_size=1)
    words = sys.argv[1 : sys.argv.index("--prompts")]  # config, seed and model
    words += [*before, "--shards", *map(str, folders), "--output", str(tmp_path / "merged" / str(number))]
    monkeypatch.setattr(sys, "argv", ["evaluation_shards", *words])
    evaluation_shards.main()
    files = (tmp_path / "merged" / str(number)).iterdir()
    return {file.name: file.read_bytes() for file in files if file.suffix in (".csv", ".npy")}


def test_shards_judged_by_the_hub_have_the_bytes_of_one_job(run, tmp_path, monkeypatch):
    """However much an answer depends on what else is in the batch."""

    def brightness(judge, images, rows):
        return [float(images.mean()) / 255 + len(images)] * len(images)

    monkeypatch.setattr(BlipVQA, "answers", brightness)
    monkeypatch.setattr(Detector, "answers", brightness)
    monkeypatch.setattr(Qwen25VL, "answers", lambda *_: [f"The score is {len(_[1]) % 2}."] * len(_[1]))
    run(tmp_path / "baseline" / "evaluation", batch_size=1)
    assert len(pd.read_csv(tmp_path / "baseline" / "evaluation" / "images.csv")["score"].unique()) == 4
    before = "--baseline", str(tmp_path / "baseline" / "evaluation")
    whole = run(tmp_path / "sft" / "evaluation", *before, batch_size=1)
    assert merged(run, tmp_path, monkeypatch, 3, *before) == whole
