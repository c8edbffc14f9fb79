"""The judges that stand in for the oracle, one after the other: a verdict judge asked about all images (the paper's Qwen2.5-VL,
section 2.4) and, where prompts come from benchmarks, their own scores (paper 4.5), each judge for the images of its subtasks.

Which class a judge is, configs/judge says.
"""

import gc

import numpy as np
import torch

from replication.classes import find_class
from replication.judges.cache import scores_of
from replication.judges.phrases import parts_of_complex

ATTRIBUTE, SPATIAL, ACTION = "blip_vqa", "detector", "clip_score"
PARTS = {"attribute": ATTRIBUTE, "spatial": SPATIAL, "action": ACTION}
# T2I-CompBench's score of each subtask (arXiv 2307.06350); complex is 3-in-1, by prompt
T2I_COMPBENCH = {
    "color": ATTRIBUTE,
    "shape": ATTRIBUTE,
    "texture": ATTRIBUTE,
    "spatial": SPATIAL,
    "non_spatial": ACTION,
}


def judges_of(benchmark, subtask, prompt):
    """The judges whose mean is a benchmark's score of an image: a tuple of names. Raises SystemExit for an unknown subtask."""
    if benchmark == "geneval":
        return (SPATIAL,)
    if (benchmark, subtask) == ("t2i_compbench", "complex"):
        return tuple(PARTS[part] for part in parts_of_complex(prompt))
    if benchmark != "t2i_compbench" or subtask not in T2I_COMPBENCH:
        raise SystemExit(
            f"No score is known for the subtask {subtask} of {benchmark}; add it to replication/judges/panel.py."
        )
    return (T2I_COMPBENCH[subtask],)


def judges_needed(rows, config):
    """The names of `judges_of` for each prompt of the frame `rows`; None where the prompts come from no benchmark.

    Raises SystemExit where the panel `config` lacks one of them, or a verdict judge.
    """
    asked = None
    if "benchmark" in rows:
        asked = [judges_of(*row) for row in rows[["benchmark", "subtask", "prompt"]].itertuples(index=False)]
    missing = {"verdict"}.union(*asked or ()) - set(config)
    if missing:
        raise SystemExit(
            f"The judge {config['name']} has no {' and no '.join(sorted(missing))} in configs/judge/{config['name']}.yaml; "
            "it needs a block `verdict` and, for prompts of benchmarks, benchmark_scores among its defaults."
        )
    return asked


def check_judges(config, folders):
    """Raises SystemExit where a judge of the panel `config` cannot be loaded here (`Judge.check`)."""
    folders = {folder.name: folder for folder in folders}
    for block in config.values():
        if isinstance(block, dict):
            find_class(block["class"]).check(folders.get(block["name"]), block)


def load_judge(name, config, folders):
    """The judge `name` of the panel; folders: {name: folder} of downloaded models."""
    block = config[name]
    judge = find_class(block["class"]).load(folders.get(block["name"]), block)
    if name == SPATIAL:
        judge.colours = load_judge("colours", config, folders)
    return judge


def ask(name, images, rows, config, folders, answers, together):
    """Scores (n,) of images by the judge `name`, which then makes room for the next one."""
    judge = load_judge(name, config, folders)
    path = answers / f"{config[name]['name']}.jsonl"
    scores = scores_of(judge, images, rows, path, config[name]["batch_size"], together)
    del judge
    gc.collect()
    torch.cuda.empty_cache()
    return scores


def judge_images(images, rows, config, folders, answers, together):
    """What the panel says of images (n, H, W, 3) uint8: the frame `rows` with two more columns, or three.

    rows: columns prompt and, where the prompts come from benchmarks, subtask, benchmark and metadata (JSON; read of GenEval's
    prompts only). config: the `judge` of the evaluation section. folders: of downloaded models, each under its name. answers:
    folder of what was answered before (`replication.judges.cache`). together: (n,); images with different numbers are not judged
    in one batch, on which the last digits of scores depend.
    Columns: truth, 1 where the verdict judge says so; truth_parsed, 0 where its answer had no score, and truth is 0; score, of
    the benchmark, in [0, 1].
    """
    asked = judges_needed(rows, config)
    folders = {folder.name: folder for folder in folders}
    verdict = ask("verdict", images, rows.assign(metadata=None), config, folders, answers, together)
    judged = rows.assign(truth=(verdict == 1).astype(int), truth_parsed=(~np.isnan(verdict)).astype(int))
    if asked is None:
        return judged
    total = np.zeros(len(rows))
    for name in (ATTRIBUTE, SPATIAL, ACTION):
        of_judge = np.array([name in names for names in asked])
        if of_judge.any():
            rules = (rows["benchmark"] == "geneval") & (name == SPATIAL)
            about = rows.assign(metadata=rows["metadata"].where(rules, None))
            total[of_judge] += ask(
                name, images[of_judge], about[of_judge], config, folders, answers, together[of_judge]
            )
    return judged.drop(columns="metadata").assign(score=total / [len(names) for names in asked])
