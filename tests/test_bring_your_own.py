"""docs/bring_your_own.md: what it tells a reader to write is written, planned and run; no rule or module is touched."""

import json
import math
import re
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch
from settings import MODEL
from test_workflow import ROOT, copy_repository, dry_run, edited, jobs_of, run

from replication.models.janus import JanusModel
from replication.supervision import select

BLOCKS = re.findall(r"```(yaml|python)\n(.*?)```", (ROOT / "docs/bring_your_own.md").read_text(), re.DOTALL)
EXPERIMENT, RULE, *OWN_CLASSES = (text for _, text in BLOCKS)
FILES = (
    "own/asked_twice.py",
    "configs/model/asked_twice.yaml",
    "own/colours_only.py",
    "configs/judge/colours_only.yaml",
)
OWN = ("--config", "preset=smoke", 'overrides=["choices.model=asked_twice","choices.judge=colours_only"]')
TARGET = "results/smoke/{}/seed=0/evaluation/metrics.csv"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    folder = copy_repository(tmp_path_factory.mktemp("own"))
    (folder / "own").mkdir()
    (folder / "own/confident.py").write_text(RULE)
    (folder / "configs/experiment/sft_slow.yaml").write_text(EXPERIMENT)
    own = EXPERIMENT.replace("rule: best", "rule: own.confident").replace("sft_slow", "sft_confident")
    (folder / "configs/experiment/sft_confident.yaml").write_text(own)
    for name, text in zip(FILES, OWN_CLASSES, strict=True):
        (folder / name).write_text(text)
    return folder


def test_an_experiment_is_one_file(checkout):
    text = dry_run(checkout, TARGET.format("sft_slow"), "--config", "preset=smoke")
    command = re.search(r"python -m replication\.post_training --config '(.*?)'", text)[1]
    assert json.loads(command)["learning_rate"] == 1.5e-4
    assert json.loads(re.search(r"python -m replication\.supervision --config '(.*?)'", text)[1])["rule"] == "best"


def test_a_rule_is_one_file_and_one_experiment(checkout, tmp_path):
    text = dry_run(checkout, TARGET.format("sft_confident"), "--config", "preset=smoke")
    block = text[text.index("rule supervision:") :]
    assert "own/confident.py" in re.search(r"input: (.*)", block)[1].split(", ")
    assert text.count("own/confident.py") == 1  # its edits rerun the selection
    config = re.search(r"python -m replication\.supervision --config '(.*?)'", text)[1]

    margins = [3.0, 1.0, -1.0, 2.0, 5.0, 4.0, -2.0, -3.0]  # of two prompts and a third that accepts nothing
    table = pd.DataFrame({"prompt_id": [7, 7, 7, 2, 2, 2, 4, 4], "alignment_logit": margins, "truth": 1})
    table["candidate"] = table.groupby("prompt_id").cumcount()
    table = table.assign(
        prompt=table["prompt_id"].astype(str), subtask="colour", verdict=(table["alignment_logit"] > 0) * 1
    )
    table.to_csv(tmp_path / "candidates.csv", index=False)
    config = json.dumps(json.loads(config) | {"candidates_per_prompt": 2})
    arguments = ["--config", config, "--seed", "0", "--candidates", tmp_path, "--output", tmp_path / "training_set.csv"]
    done = run(checkout, "python", "-m", "replication.supervision", *arguments)
    assert done.returncode == 0, done.stdout
    # Of the first two of each prompt, 3, 1, 2 and 5 are accepted, and their median is 2.5.
    assert pd.read_csv(tmp_path / "training_set.csv")["chosen"].tolist() == [0, 4]


def test_a_rule_that_is_not_there_is_one_sentence(checkout):
    done = run(
        checkout,
        "snakemake",
        "-n",
        TARGET.format("sft"),
        "--config",
        "preset=smoke",
        'overrides=["supervision.rule=own.x"]',
    )
    assert done.returncode != 0 and "There is no module own.x: own/x.py does not exist." in done.stdout
    with pytest.raises(ValueError, match="knows the methods"):
        select(pd.DataFrame(), "sft", "better", 1)


def inputs_of(text, rule):
    """The input files of a rule's first job in the text of a dry run."""
    block = text[text.index(f"rule {rule}:") :]
    return re.search(r"input: (.*)", block)[1].split(", ")


def test_a_model_is_one_class_and_one_file(checkout):
    targets = [TARGET.format("sft"), "results/smoke/sft/seed=0/quality_check.csv"]
    text = dry_run(checkout, *targets, *OWN)
    for rule in ("candidates", "quality_check", "post_training", "baseline_evaluation", "evaluation"):
        assert "own/asked_twice.py" in inputs_of(text, rule), rule
    assert "own/asked_twice.py" not in inputs_of(text, "supervision")
    assert "asked_twice" not in dry_run(checkout, *targets, "--config", "preset=smoke")


def test_a_judge_is_one_class_and_one_file(checkout):
    text = dry_run(checkout, TARGET.format("sft"), *OWN)
    assert all("own/colours_only.py" in inputs_of(text, rule) for rule in ("baseline_evaluation", "evaluation"))
    assert text.count("own/colours_only.py") == 2 and "hub_judge" not in text
    hub = {f"replication/judges/{name}.py" for name in ("qwen2_5_vl", "blip_vqa", "clip_score", "detector", "hub")}
    oracle = inputs_of(dry_run(checkout, TARGET.format("sft"), "--config", "preset=smoke"), "evaluation")
    assert not hub & set(oracle) and "replication/scenes/oracle.py" in oracle
    paper = dry_run(checkout, "results/paper/sft/seed=0/evaluation/metrics.csv", "--config", "preset=paper")
    assert hub < set(inputs_of(paper, "evaluation_shard")) and not hub & set(inputs_of(paper, "candidates"))


def test_an_evaluation_with_both_is_theirs(checkout):
    """Verdicts and truths against what the two are meant to say, worked out from the images that were written."""
    target = TARGET.format("baseline")
    done = run(checkout, "snakemake", "--cores", "1", target, *OWN)
    assert done.returncode == 0, done.stdout[-3000:]
    folder = (checkout / target).parent
    rows, images = pd.read_csv(folder / "images.csv"), np.load(folder / "images.npy", allow_pickle=False)
    rows = rows[rows["image"] == 0]  # whose pixels are kept

    torch.set_num_threads(1)
    wordings = ("does this image describe {prompt} ?", "{prompt} ?")
    models = [JanusModel.load(checkout / "results/smoke/base/base=0", {**MODEL, "question": q}) for q in wordings]
    with torch.no_grad():
        logits = [model.alignment_logits(images, rows["prompt"].tolist()).numpy() for model in models]
    assert np.abs(logits[0] - logits[1]).mean() > 0.1
    np.testing.assert_allclose(rows["alignment_logit"], (logits[0] + logits[1]) / 2, atol=1e-3)

    palette = {"red": (214, 39, 40), "green": (44, 150, 60), "blue": (40, 90, 210), "yellow": (245, 195, 30)}
    palette |= {"purple": (150, 70, 180), "black": (35, 35, 35), "paper": (238, 238, 232)}
    for prompt, image, truth in zip(rows["prompt"], images, rows["truth"], strict=True):
        pixels = image.reshape(-1, 3).tolist()
        seen = Counter(min(palette, key=lambda name: math.dist(palette[name], pixel)) for pixel in pixels)
        assert truth == all(seen[word] >= 8 for word in prompt.split() if word in palette), prompt
    assert 0 < rows["truth"].mean() < 1 and (rows["truth_parsed"] == 1).all() and "score" not in rows
    table = pd.read_csv(folder / "metrics.csv").set_index(["subtask", "metric", "judge"])["value"]
    by_subtask = rows.groupby("subtask")["truth"].mean().mean()
    assert table["overall", "generation", "colours_only"] == pytest.approx(by_subtask)

    assert "Nothing to be done" in dry_run(checkout, target, *OWN)
    with edited(checkout / "own/colours_only.py", '"""', '# edited\n"""'):
        assert jobs_of(dry_run(checkout, target, *OWN)) == {"baseline_evaluation": 1}
    with edited(checkout / "replication/judges/detector.py", '"""', '# edited\n"""'):
        assert "Nothing to be done" in dry_run(checkout, target, *OWN)


def test_a_class_that_is_not_there_is_one_sentence(checkout):
    for choice in ('"model.class=own.x.Y"', '"judge.verdict.class=own.x.Y","choices.judge=colours_only"'):
        settings = ("--config", "preset=smoke", f"overrides=[{choice}]")
        done = run(checkout, "snakemake", "-n", TARGET.format("sft"), *settings)
        assert done.returncode != 0 and "There is no module own.x: own/x.py does not exist." in done.stdout
