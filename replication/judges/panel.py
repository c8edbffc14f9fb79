"""The judges of the paper scale, one after the other: a verdict judge asked about all images (the paper's Qwen2.5-VL, section
2.4), and the benchmarks' own scores (paper 4.5), each judge for the images of its subtasks.
"""

import gc

import numpy as np
import torch

from replication.judges.blip_vqa import BlipVQA
from replication.judges.cache import scores_of
from replication.judges.clip_score import ClipScore
from replication.judges.detector import Detector
from replication.judges.phrases import parts_of_complex
from replication.judges.qwen2_5_vl import Qwen25VL

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


def load_judge(name, config, folders):
    """The judge `name` of the panel; folders: {name: folder} of downloaded models."""
    judge = config[name]
    if name == "verdict":
        return Qwen25VL.load(folders[judge["name"]], judge)
    if name == ATTRIBUTE:
        return BlipVQA.load(folders[judge["name"]], judge)
    if name == ACTION:
        return ClipScore.load(folders[judge["name"]], judge)
    detector = Detector.load(folders[judge["name"]], judge)
    detector.colours = ClipScore.load(folders[config["colours"]["name"]], config["colours"])
    return detector


def judge_images(images, rows, config, folders, answers):
    """What the panel says of images (n, H, W, 3) uint8: the frame `rows` with three more columns.

    rows: columns prompt, subtask, benchmark and metadata (JSON; read of GenEval's prompts only). config: the `judge` of the
    evaluation section. folders: of downloaded models, each under its name. answers: folder of what was answered before
    (`replication.judges.cache`).
    Columns: truth, 1 where the verdict judge says so; truth_parsed, 0 where its answer had no score, and truth is 0; score, of
    the benchmark, in [0, 1].
    """
    asked = [judges_of(*row) for row in rows[["benchmark", "subtask", "prompt"]].itertuples(index=False)]
    folders = {folder.name: folder for folder in folders}
    total, number = np.zeros(len(rows)), np.array([len(names) for names in asked])
    for name in ("verdict", ATTRIBUTE, SPATIAL, ACTION):
        of_judge = np.array([name == "verdict" or name in names for names in asked], bool)
        if not of_judge.any():
            continue
        judge = load_judge(name, config, folders)
        file = answers / f"{config[name]['name']}.jsonl"
        rules = (rows["benchmark"] == "geneval") & (name == SPATIAL)
        about = rows.assign(metadata=rows["metadata"].where(rules, None))
        scores = scores_of(judge, images[of_judge], about[of_judge], file, config[name]["batch_size"])
        if name == "verdict":
            verdict = scores
        else:
            total[of_judge] += scores
        del judge
        gc.collect()
        torch.cuda.empty_cache()
    parsed = ~np.isnan(verdict)
    judged = {"truth": (verdict == 1).astype(int), "truth_parsed": parsed.astype(int), "score": total / number}
    return rows.drop(columns="metadata").assign(**judged)
