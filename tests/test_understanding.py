"""The understanding side up to the harness's call, on result files in its format, and its plug-in against plain forward passes.

lmms-eval is not installed here. A stand-in has its four names that the plug-in uses, reads the options that are given to it and
asks the model two questions in its calls' form (lmms_eval 0.7.2: evaluator.py, evaluator_utils.py, loggers/evaluation_tracker.py).
"""

import json
import os
import re
import subprocess
import sys
import tomllib

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from hub_checkpoints import HUB_MODEL
from PIL import Image
from test_workflow import ROOT, copy_repository, planned, run

from replication import understanding
from replication.config import load_stage
from replication.models.interface import UnifiedModel
from replication.models.janus import JanusModel

CONFIG = load_stage("understanding", "paper", experiment="sft")
RESULTS = {
    "results": {
        "pope": {
            "alias": "pope",
            "pope_accuracy,none": 0.875,
            "samples": 9000,
            "pope_accuracy_stderr,none": "N/A",
            "pope_accuracy_stderr_clt,none": 0.0035,
            "pope_accuracy_stderr_clustered,none": "N/A",
            "pope_f1_score,none": 0.86,
            "pope_f1_score_stderr,none": "N/A",
        },
        "mmbench_en_dev_static": {
            "alias": "mmbench_en_dev_static",
            "gpt_eval_score,none": 66.0,
            "samples": 4329,
            "gpt_eval_score_stderr,none": "N/A",
            "submission,none": None,
            "submission_stderr,none": "N/A",
        },
        "gqa": {"alias": "gqa", "exact_match,none": 0.5602, "samples": 12578, "exact_match_stderr,none": 0.0044},
        "mmmu_val": {"alias": "mmmu_val", "mmmu_acc,none": 0.32889, "samples": 900, "mmmu_acc_stderr,none": "N/A"},
    },
    "n-samples": {"pope": {"original": 9000, "effective": 9000}},
    "config": {"model": "unified", "batch_size": "1"},
}
STAND_IN = {
    "lmms_eval-0.7.2.dist-info/METADATA": "Metadata-Version: 2.1\nName: lmms_eval\nVersion: 0.7.2\n",
    "lmms_eval/__init__.py": "",
    "lmms_eval/api/__init__.py": "",
    "lmms_eval/api/model.py": "class lmms:\n    def __init__(self):\n        self.task_dict = {}\n",
    "lmms_eval/models/registry_v2.py": "class ModelManifest:\n    def __init__(self, model_id, simple_class_path):\n"
    "        self.model_id, self.simple_class_path = model_id, simple_class_path\n",
    "lmms_eval/models/__init__.py": "class MODEL_REGISTRY_V2:\n    models = {}\n\n    @classmethod\n"
    "    def register_manifest(cls, manifest):\n"
    "        cls.models[manifest.model_id] = manifest.simple_class_path.rsplit('.', 1)\n",
    "lmms_eval/__main__.py": """
import argparse, importlib, json, os, types
from pathlib import Path
from PIL import Image
from lmms_eval.models import MODEL_REGISTRY_V2

def cli_evaluate():
    parser = argparse.ArgumentParser()
    for name in ("model", "model_args", "tasks", "batch_size", "output_path", "verbosity"):
        parser.add_argument("--" + name, required=True)
    options = parser.parse_args()
    module, name = MODEL_REGISTRY_V2.models[options.model]
    arguments = dict(pair.split("=", 1) for pair in options.model_args.split(","))
    model = getattr(importlib.import_module(module), name)(**arguments, batch_size=options.batch_size)
    pictures = [Image.new("L", (30, 20), 90), Image.new("RGB", (16, 16), (200, 0, 0))]
    model.task_dict = {"pope": {"test": [pictures[:1], pictures]}}
    limits = {"max_new_tokens": 8, "until": ["\\n\\n"], "temperature": 0.0}
    asked = [types.SimpleNamespace(args=("What {is} it?", limits, lambda doc: doc, n, "pope", "test")) for n in (0, 1)]
    answers = model.generate_until(asked)
    folder = Path(options.output_path) / "__".join(arguments["pretrained"].split("/")[-2:])
    folder.mkdir(parents=True)
    (folder / "answers.json").write_text(json.dumps(answers))
    (folder / "20261125_021500_results.json").write_text(Path(os.environ["RESULT_FILE"]).read_text())
    submissions = Path(options.output_path) / "submissions"
    submissions.mkdir()
    (submissions / "mmbench_en_dev_static_results.json").write_text("{}")
""",
}


def test_the_command_is_what_the_harness_parses():
    line = understanding.command("results/p/sft/seed=0/model", "results/p/model.json", CONFIG["tasks"], "out/seed=0")
    assert line[:3] == [sys.executable, "-m", "replication.harness_model"]
    options = dict(zip(line[3::2], line[4::2], strict=True))
    pairs = dict(pair.split("=", 1) for pair in options["--model_args"].split(","))
    assert pairs == {"pretrained": "results/p/sft/seed=0/model", "config": "results/p/model.json"}
    assert options["--tasks"].split(",") == ["pope", "mmbench_en_dev_static", "gqa", "mmmu_val"]
    assert options["--output_path"] == "out/seed=0" and options["--verbosity"] == "DEBUG"


def test_scores_are_shares_and_no_standard_errors(tmp_path):
    (tmp_path / "seed=0__model").mkdir()
    file = tmp_path / "seed=0__model" / "20261125_021500_results.json"
    file.write_text(json.dumps(RESULTS))
    rows = understanding.read_scores(tmp_path, CONFIG["tasks"])
    assert list(rows) == ["subtask", "metric", "value", "n"]
    assert rows.to_numpy().tolist() == [
        ["pope", "pope_accuracy", 0.875, 9000],
        ["pope", "pope_f1_score", 0.86, 9000],
        ["mmbench_en_dev_static", "gpt_eval_score", 0.66, 4329],
        ["gqa", "exact_match", 0.5602, 12578],
        ["mmmu_val", "mmmu_acc", 0.32889, 900],
    ]
    with pytest.raises(SystemExit, match="has no score of the task seedbench; its log says why"):
        understanding.read_scores(tmp_path, {"gqa": 1, "seedbench": 1})
    file.with_name("20261125_021501_results.json").write_text("{}")
    with pytest.raises(SystemExit, match="left 2 result files"):
        understanding.read_scores(tmp_path, CONFIG["tasks"])


def station(folder, config, checkpoint, **environment):
    """Run the station on `checkpoint`; its output folder is `folder`/understanding."""
    words = ["--config", json.dumps(config), "--seed", "3", "--base", "4", "--model", str(checkpoint)]
    words += ["--output", str(folder / "understanding")]
    environment = {**os.environ, **environment}
    line = [sys.executable, "-m", "replication.understanding", *words]
    return subprocess.run(line, cwd=ROOT, env=environment, check=False, capture_output=True, text=True)


def test_without_the_harness_it_is_one_sentence(tmp_path):
    done = station(tmp_path, CONFIG, tmp_path)
    assert done.returncode != 0 and done.stderr.count("\n") == 1 and not list(tmp_path.iterdir())
    assert done.stderr.startswith(
        "The understanding side needs lmms_eval 0.7.2, and none is installed here; run with `--so"
    )


def test_the_station_hands_the_checkpoint_over_and_reads_what_comes_back(hub_checkpoint, tmp_path):
    for name, text in STAND_IN.items():
        (tmp_path / "stand_in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "stand_in" / name).write_text(text)
    (tmp_path / "results.json").write_text(json.dumps(RESULTS))
    path = os.pathsep.join([str(tmp_path / "stand_in"), str(ROOT)])
    environment = {"PYTHONPATH": path, "RESULT_FILE": str(tmp_path / "results.json"), "OMP_NUM_THREADS": "1"}
    done = station(tmp_path, {**CONFIG, "model": HUB_MODEL}, hub_checkpoint, **environment)
    assert done.returncode == 0, done.stderr
    rows = pd.read_csv(tmp_path / "understanding" / "scores.csv")
    assert ",".join(rows) == "preset,experiment,model,method,seed,subtask,metric,value,n"
    assert rows.iloc[2].tolist() == [
        *("paper", "sft", "janus_pro_7b-4", "sft", 3),
        *("mmbench_en_dev_static", "gpt_eval_score", 0.66, 4329),
    ]

    torch.set_num_threads(1)
    model = JanusModel.load(hub_checkpoint, HUB_MODEL)
    pictures = [Image.new("RGB", (30, 20), (90, 90, 90)), Image.new("RGB", (16, 16), (200, 0, 0))]
    expected = [greedy(model, pictures[:number], "What {is} it?", 8) for number in (1, 2)]
    (file,) = (tmp_path / "understanding").rglob("answers.json")
    assert json.loads(file.read_text()) == [answer.split("\n\n")[0].strip() for answer in expected]
    assert expected[0] != expected[1]

    failing = station(tmp_path, {**CONFIG, "model": HUB_MODEL}, tmp_path / "nothing", **environment)
    assert failing.returncode != 0 and failing.stderr.splitlines()[-1].startswith("lmms_eval ended with 1; ")
    assert rows.equals(pd.read_csv(tmp_path / "understanding" / "scores.csv"))


def greedy(model, pictures, question, steps):
    """The likeliest tokens one by one, by the processor's own chat template, system prompt and pixels, and plain forward passes."""
    content = [*[{"type": "image"} for _ in pictures], {"type": "text", "text": question}]
    turn = [{"role": "user", "content": content}]
    text = model.processor.apply_chat_template(turn, add_generation_prompt=True)
    inputs = model.processor(text=[text], images=pictures, return_tensors="pt")
    ids = start = inputs["input_ids"]
    while ids.shape[1] < start.shape[1] + steps and ids[0, -1] != model.processor.tokenizer.eos_token_id:
        with torch.no_grad():
            logits = model.model(input_ids=ids, pixel_values=inputs["pixel_values"]).logits
        ids = torch.cat([ids, logits[:, -1:].argmax(dim=-1)], dim=1)
    return model.processor.tokenizer.decode(ids[0, start.shape[1] :], skip_special_tokens=True)


def test_a_free_answer_is_that_to_the_question_of_a_verdict(hub_checkpoint):
    torch.set_num_threads(1)
    model = JanusModel.load(hub_checkpoint, HUB_MODEL)
    images = np.random.default_rng(0).integers(256, size=(2, 24, 24, 3), dtype=np.uint8)
    answers = model.written_answers(images, ["a cup", "a bowl"], 6)
    questions = [model.question.format(prompt=prompt) for prompt in ("a cup", "a bowl")]
    assert answers == [model.answer([image], text, 6) for image, text in zip(images, questions, strict=True)]
    with pytest.raises(SystemExit, match="JanusModel has no method `answer`"):
        UnifiedModel.answer(model, [], "", 1)


@pytest.mark.parametrize("file", ["envs/understanding.yaml", "environment.yaml"])
def test_environments_have_our_versions(file):
    """And name no file, which conda would look for beside a copy of its own."""
    packages = yaml.safe_load((ROOT / file).read_text())["dependencies"][-1]["pip"]
    versions = dict(package.split("==") for package in packages if package != "pytz")
    ours = dict(re.findall(r"^(\S+)==(\S+)$", (ROOT / "constraints.txt").read_text().lower(), re.MULTILINE))
    if file == "environment.yaml":
        needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
        assert set(versions) == {re.match(r"[\w-]+(\[\w+\])?", package)[0] for package in needed}
    else:
        assert versions.pop("lmms_eval") == CONFIG["version"]
    assert "transformers" in versions
    assert versions == {name: ours[name.partition("[")[0]] for name in versions}


def test_the_target_asks_the_models_of_the_papers_table(tmp_path):
    folder = copy_repository(tmp_path)
    jobs = planned(folder, "understanding", "--config", "preset=paper")
    assert jobs["understanding_scores baseline"] == 1 and jobs["understanding_scores sft"] == 3
    assert jobs["post_training sft"] == 3 and not any(job.startswith("evaluation") for job in jobs)
    done = run(folder, "snakemake", "-n", "understanding", "--config", "preset=smoke")
    assert done.returncode != 0 and done.stdout.splitlines()[-1].endswith("49 words: add --config preset=paper.")
    assert not any("understanding" in job for job in planned(folder, "--config", "preset=paper"))
