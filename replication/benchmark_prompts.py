"""Station 1 at the paper's scale: training prompts of T2I-CompBench, evaluation prompts of T2I-CompBench and GenEval.

python -m replication.benchmark_prompts --config JSON --files FOLDER --output FOLDER
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd

from replication.files import atomic_file

# The paper's strata are a benchmark each (section 2.2, for the three subtasks that it shows of each); so all subtasks of a
# benchmark have its stratum. The hard one, Science-T2I, has photographs and judges of its own and is not here.
STRATUM_OF = {"geneval": "easy", "t2i_compbench": "medium"}
COLUMNS = ["prompt", "subtask", "stratum", "benchmark", "metadata"]
NO_METADATA = "{}"
IMAGE_SIZE = 384  # of Janus-Pro, for the empty array of labelled scenes


def read_t2i_compbench(text, subtask):
    """One prompt per line: frame of `COLUMNS`. The benchmark's judges need the prompt and its subtask alone, so metadata is {}.

    Raises SystemExit when there is no prompt.
    """
    prompts = [line.strip() for line in text.splitlines() if line.strip()]
    if not prompts:
        raise SystemExit(f"The T2I-CompBench file of the subtask {subtask} has no prompts.")
    return _table(prompts, subtask, "t2i_compbench", NO_METADATA)


def read_geneval(text):
    """One JSON object per line, with prompt, tag and what a detector must (include) or must not find (exclude): frame of
    `COLUMNS`, the subtask being the tag and metadata the line's object.

    Raises SystemExit for a line that is no such object.
    """
    rows = []
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            values = json.loads(line)
            rows.append(
                _table([values["prompt"].strip()], values["tag"], "geneval", json.dumps(values, sort_keys=True))
            )
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise SystemExit(
                f"Line {number} of GenEval's metadata is not an object with prompt and tag: {line!r}."
            ) from error
    return pd.concat(rows, ignore_index=True)


def _table(prompts, subtask, benchmark, metadata):
    return pd.DataFrame({"prompt": prompts, "subtask": subtask}).assign(
        stratum=STRATUM_OF[benchmark], benchmark=benchmark, metadata=metadata
    )[COLUMNS]


def first_of_each(table, number):
    """The first `number` prompts of each subtask, in their order; all when it is None."""
    return table if number is None else table.groupby("subtask", sort=False).head(number)


def normalised(prompts):
    """Prompts as they are compared: lower case, single blanks, no full stop at the end."""
    return prompts.str.lower().str.split().str.join(" ").str.rstrip(".")


def leaks(train, evaluation):
    """Training prompts that stand among the evaluation prompts, too, when both are `normalised`: frame of their rows' index
    as train_row, and prompt, subtask, evaluation_prompt, evaluation_subtask."""
    both = train.assign(key=normalised(train["prompt"]), train_row=train.index).merge(
        evaluation.assign(key=normalised(evaluation["prompt"]))[["key", "prompt", "subtask"]],
        on="key",
        suffixes=("", "_evaluation"),
    )
    both = both.rename(columns={f"{name}_evaluation": f"evaluation_{name}" for name in ("prompt", "subtask")})
    return both[["train_row", "prompt", "subtask", "evaluation_prompt", "evaluation_subtask"]]


def benchmark_prompts(files, config):
    """Frames train, evaluation and leaks of the benchmark files below the folder `files`.

    config: `train_subtasks` and `evaluation_subtasks` of T2I-CompBench, and `train_prompts` and `evaluation_prompts`, how many
    of each subtask. Leaks are looked for in the whole splits, whatever is used of them, and left out of train.
    """

    def split(subtasks, name):
        texts = {
            subtask: (files / "t2i_compbench" / f"{subtask}_{name}.txt").read_text("utf-8") for subtask in subtasks
        }
        return pd.concat([read_t2i_compbench(text, subtask) for subtask, text in texts.items()], ignore_index=True)

    train = split(config["train_subtasks"], "train")
    evaluation = split(config["evaluation_subtasks"], "val")
    geneval = read_geneval((files / "geneval" / "evaluation_metadata.jsonl").read_text("utf-8"))
    evaluation = pd.concat([evaluation, geneval], ignore_index=True)
    leaked = leaks(train, evaluation)
    train = first_of_each(train.drop(index=leaked["train_row"].unique()), config["train_prompts"])
    evaluation = first_of_each(evaluation, config["evaluation_prompts"])
    numbered = [table.reset_index(drop=True).rename_axis("prompt_id").reset_index() for table in (train, evaluation)]
    return *numbered, leaked


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=json.loads, required=True)
    parser.add_argument("--files", type=Path, required=True, help="folder that replication.downloads wrote")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    train, evaluation, leaked = benchmark_prompts(arguments.files, arguments.config)
    # There are no labelled scenes at this scale, as there is no renderer whose pictures a real model would know.
    probe = pd.DataFrame(columns=["probe_id", "prompt", "subtask", "stratum", "label"])
    tables = {"train": train, "evaluation": evaluation, "leaks": leaked, "probe": probe}
    for name, table in tables.items():
        with atomic_file(arguments.output / f"{name}.csv") as partial:
            table.to_csv(partial, index=False)
    with atomic_file(arguments.output / "probe_images.npy") as partial:
        np.save(partial, np.empty((0, IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8), allow_pickle=False)


if __name__ == "__main__":
    main()
