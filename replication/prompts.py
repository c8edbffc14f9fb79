"""Station 1: training prompts, evaluation prompts with other meanings, and labelled probe scenes.

python -m replication.prompts --config JSON --output FOLDER
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd

from replication.files import atomic_file
from replication.scenes import STRATUM_OF, SUBTASKS
from replication.scenes.grammar import canonical, parse
from replication.scenes.renderer import render
from replication.scenes.world import miss_scene, sample_prompt, sample_scene, sample_split_meaning


def distinct_prompts(subtask: str, number: int, held_out: bool, rng: np.random.Generator) -> list[str]:
    """`number` different prompts of a subtask, from the training or the held-out meanings.

    Raises:
        ValueError: the grammar has not that many.
    """
    prompts: dict[str, None] = {}
    for _ in range(200 * number):
        meaning = sample_split_meaning(subtask, held_out, rng)
        prompts.setdefault(sample_prompt(meaning, rng))
        if len(prompts) == number:
            return list(prompts)
    raise ValueError(
        f"the grammar has only about {len(prompts)} {'evaluation' if held_out else 'training'} prompts for "
        f"{subtask}, not {number}; lower prompts.{'evaluation' if held_out else 'train'}_prompts_per_subtask"
    )


def prompt_table(number: int, held_out: bool, seed: int) -> pd.DataFrame:
    """Prompts of all nine subtasks, `number` each: columns prompt_id, prompt, subtask, stratum."""
    rng = np.random.default_rng((seed, int(held_out)))
    rows = [
        (prompt, subtask, STRATUM_OF[subtask])
        for subtask in SUBTASKS
        for prompt in distinct_prompts(subtask, number, held_out, rng)
    ]
    table = pd.DataFrame(rows, columns=["prompt", "subtask", "stratum"])
    table.insert(0, "prompt_id", range(len(table)))
    return table


def probe_set(pairs: int, seed: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Labelled scenes for measuring understanding: per held-out prompt one scene that shows it and one near miss.

    Returns:
        Columns probe_id, prompt, subtask, stratum, label; and the pictures, (2 * pairs * 9, 24, 24, 3) uint8.
    """
    rng = np.random.default_rng((seed, 2))
    rows, scenes = [], []
    for subtask in SUBTASKS:
        for _ in range(pairs):
            meaning = sample_split_meaning(subtask, held_out=True, rng=rng)
            prompt = sample_prompt(meaning, rng)
            for label, scene in ((1, sample_scene(meaning, rng)), (0, miss_scene(meaning, rng))):
                rows.append((prompt, subtask, STRATUM_OF[subtask], label))
                scenes.append(scene)
    table = pd.DataFrame(rows, columns=["prompt", "subtask", "stratum", "label"])
    table.insert(0, "probe_id", range(len(table)))
    return table, render(scenes, rng)


def check_disjoint(train: pd.DataFrame, evaluation: pd.DataFrame, probe: pd.DataFrame) -> None:
    """Raises ValueError when a training prompt means the same as an evaluation or probe prompt."""
    trained = {canonical(parse(prompt)) for prompt in train["prompt"]}
    for prompt in (*evaluation["prompt"], *probe["prompt"]):
        if canonical(parse(prompt)) in trained:
            raise ValueError(f'the evaluation prompt "{prompt}" stands among the training prompts')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=json.loads, required=True)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    seed = args.config["seed"]
    try:
        train = prompt_table(args.config["train_prompts_per_subtask"], held_out=False, seed=seed)
        evaluation = prompt_table(args.config["evaluation_prompts_per_subtask"], held_out=True, seed=seed)
    except ValueError as error:
        raise SystemExit(f"{error}.") from error
    probe, probe_images = probe_set(args.config["probe_pairs_per_subtask"], seed)
    check_disjoint(train, evaluation, probe)
    for name, table in (("train", train), ("evaluation", evaluation), ("probe", probe)):
        with atomic_file(args.output / f"{name}.csv") as partial:
            table.to_csv(partial, index=False)
    with atomic_file(args.output / "probe_images.npy") as partial:
        np.save(partial, probe_images, allow_pickle=False)


if __name__ == "__main__":
    main()
