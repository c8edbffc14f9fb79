"""docs/bring_your_own.md: what it tells a reader to write is written, planned and run; no rule or module is touched."""

import json
import re

import pandas as pd
import pytest
from test_workflow import ROOT, copy_repository, dry_run, run

from replication.supervision import select

BLOCKS = re.findall(r"```(yaml|python)\n(.*?)```", (ROOT / "docs/bring_your_own.md").read_text(), re.DOTALL)
EXPERIMENT, RULE = (text for _, text in BLOCKS)
TARGET = "results/smoke/{}/seed=0/evaluation/metrics.csv"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    folder = copy_repository(tmp_path_factory.mktemp("own"))
    (folder / "own").mkdir()
    (folder / "own/confident.py").write_text(RULE)
    (folder / "configs/experiment/sft_slow.yaml").write_text(EXPERIMENT)
    own = EXPERIMENT.replace("rule: best", "rule: own.confident").replace("sft_slow", "sft_confident")
    (folder / "configs/experiment/sft_confident.yaml").write_text(own)
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
