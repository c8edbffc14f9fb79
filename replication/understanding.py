"""Understanding side: a checkpoint is handed to lmms-eval, which asks it general questions about images (paper 4.5).

python -m replication.understanding --config JSON --seed 0 --base 0 --model FOLDER --output FOLDER

Runs in an environment of its own, envs/understanding.yaml. The harness fetches the questions from the model hub.
"""

import argparse
import json
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pandas as pd

from replication.files import atomic_directory
from replication.metrics import IDENTITY

COLUMNS = [*IDENTITY, "subtask", "metric", "value", "n"]


def check_harness(wanted):
    """Raises SystemExit unless lmms-eval is installed here, in this version."""
    try:
        found = version("lmms_eval")
    except PackageNotFoundError:
        found = "none"
    if found != wanted:
        raise SystemExit(
            f"The understanding side needs lmms_eval {wanted}, and {found} is installed here; run with "
            "`--software-deployment-method conda`, which builds envs/understanding.yaml."
        )


def command(model, config, tasks, output):
    """The harness's command line. model: checkpoint folder; config: JSON file of its configuration; tasks: names there; output:
    folder. With DEBUG an error ends it; otherwise it prints errors, and ends as if there were none."""
    options = ["--model", "unified", "--model_args", f"pretrained={model},config={config}", "--tasks", ",".join(tasks)]
    options += ["--batch_size", "1", "--output_path", str(output), "--verbosity", "DEBUG"]
    return [sys.executable, "-m", "replication.harness_model", *options]


def read_scores(folder, tasks):
    """All scores in the one result file that the harness wrote into `folder`: a frame subtask, metric, value (a share), n.

    tasks: {name: by what its scores are divided to be shares}. n: questions that were asked. Raises SystemExit where there is not
    one result file, or it lacks a task.
    """
    files = sorted(folder.rglob("[0-9]*_results.json"))
    if len(files) != 1:
        raise SystemExit(f"lmms_eval left {len(files)} result files in {folder}, not one; its log says why.")
    results = json.loads(files[0].read_text())["results"]
    rows = []
    for task, scale in tasks.items():
        found = results.get(task, {})
        scores = {key.partition(",")[0]: value for key, value in found.items() if key.endswith(",none")}
        scores = {name: value for name, value in scores.items() if isinstance(value, (int, float))}
        kept = [
            (task, name, value / scale, found["samples"]) for name, value in scores.items() if "_stderr" not in name
        ]
        if not kept:
            raise SystemExit(f"{files[0].name} of lmms_eval has no score of the task {task}; its log says why.")
        rows += kept
    return pd.DataFrame(rows, columns=COLUMNS[-4:])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=json.loads, required=True, help="canonical JSON of the understanding section")
    parser.add_argument("--seed", type=int, required=True, help="of the run that made the model")
    parser.add_argument("--base", type=int, required=True, help="number of the base model that it was trained from")
    parser.add_argument("--model", type=Path, required=True, help="checkpoint folder")
    parser.add_argument("--output", type=Path, required=True, help="folder of scores.csv and the harness's own files")
    arguments = parser.parse_args()
    config = arguments.config
    check_harness(config["version"])
    identity = {key: config[key] for key in ("preset", "experiment", "method")} | {"seed": arguments.seed}
    identity["model"] = f"{config['model']['name']}-{arguments.base}"
    with atomic_directory(arguments.output) as folder:
        settings = folder / "model.json"
        settings.write_text(json.dumps(config["model"]))
        ended = subprocess.run(command(arguments.model, settings, config["tasks"], folder), check=False).returncode
        if ended:
            raise SystemExit(f"lmms_eval ended with {ended}; what it says stands above.")
        scores = read_scores(folder, config["tasks"]).assign(**identity)
        scores[COLUMNS].to_csv(folder / "scores.csv", index=False)


if __name__ == "__main__":
    main()
