"""Evaluation of one model: generation, the Nonunified score, its verdicts on held-out scenes and on the images of the
pre-trained model (paper sections 1, 2 and 4.5). An imperfect judge is asked about the same images beside the oracle.
A shard is all of this but the metrics, for some batches of each (replication/evaluation_shards.py puts shards together).

Where another judge than the oracle says what is true, the panel is asked about the images once all are drawn and the model has
made room for it. What they have answered stays in a folder beside the output, and is not asked again.

Prompts and image seeds are the same for every model of a run, so that before and after are paired.
"""

import argparse
import gc
import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from replication import metrics
from replication.candidates import draw_images, drawing_order, whole_batches
from replication.claim_registry import write_registered
from replication.evaluation_summary import write_summary
from replication.files import atomic_directory
from replication.gpu_memory import check_gpu, drawing_memory
from replication.judges.panel import check_judges, judge_images, judges_needed
from replication.models.interface import load_model
from replication.verdicts import own_verdicts


def judge_probe(model, probe, images, config, judge=None):
    """The frame `probe` (probe_id, prompt, subtask, stratum, label) with the columns of `own_verdicts` on its `images`, and
    judge_verdict where there is a `judge`. There may be none, with no `images`."""
    if probe.empty:
        return probe.drop(columns="prompt").assign(alignment_logit=[], verdict=[])
    verdicts = _verdicts(model, _batches(images, config, "held-out scenes"), probe["prompt"], config)
    if judge:
        batches = _batches(images, config, "held-out scenes, by the judge")
        verdicts["judge_verdict"] = _verdicts(judge, batches, probe["prompt"], config)["verdict"]
    return probe.drop(columns="prompt").join(verdicts.set_axis(probe.index))


def judge_pretrained_images(model, baseline, codes, config):
    """Verdicts before and after on the images that the pre-trained model made of the same prompts.

    baseline: frame of the pre-trained model's own images (images.csv). codes: (n, T), their codes.
    Returns a frame prompt_id, subtask, stratum, image, what the judges say of it (truth, judge_verdict), before, after. A
    verdict on the *new* images would say nothing about understanding, because the images change with the model.
    """
    batches = _batches(torch.from_numpy(codes).long(), config, "images of the pre-trained model")
    after = _verdicts(model, map(model.decode_images, batches), baseline["prompt"], config) if len(codes) else baseline
    judges = [column for column in metrics.JUDGES.values() if column in baseline]
    verdicts = baseline[["prompt_id", "subtask", "stratum", "image", *judges]]
    return verdicts.assign(before=baseline["verdict"], after=after["verdict"].to_numpy())


def _batches(array, config, what):
    """`array` in parts of batch_size, with a progress bar."""
    size = config["batch_size"]
    return (array[start : start + size] for start in tqdm(range(0, len(array), size), desc=what))


def _verdicts(model, batches, prompts, config):
    """Verdicts of `own_verdicts` on batches of images that go with consecutive prompts."""
    verdicts, start = [], 0
    for images in batches:
        verdicts.append(own_verdicts(model, images, prompts.iloc[start : start + len(images)], config))
        start += len(images)
    return pd.concat(verdicts, ignore_index=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=json.loads, required=True, help="canonical JSON of the evaluation section")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--model", type=Path, required=True, help="checkpoint folder")
    parser.add_argument(
        "--prompts", type=Path, required=True, help="folder with evaluation.csv, probe.csv, probe_images.npy"
    )
    parser.add_argument(
        "--baseline", type=Path, help="evaluation folder of the pre-trained model, unless it is this one"
    )
    parser.add_argument(
        "--understanding", nargs="?", help="checkpoint folder whose verdicts count, unless it is --model"
    )
    parser.add_argument("--judge", type=Path, nargs="?", help="checkpoint folder of an independent judge")
    parser.add_argument(
        "--judge-models", type=Path, nargs="*", help="folders of the models of evaluation.judge, each under its name"
    )
    parser.add_argument(
        "--shard", type=int, nargs=2, metavar=("K", "N"), help="draw and judge the K-th (from 0) of N parts only"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder of the evaluation files")
    arguments = parser.parse_args()
    config, shard = arguments.config, arguments.shard or (0, 1)
    prompts, truth_by = pd.read_csv(arguments.prompts / "evaluation.csv"), config["judge"]["name"]
    if truth_by != "oracle":
        judges_needed(prompts, config["judge"])  # before hours are spent
        check_judges(config["judge"], arguments.judge_models)
    others = bool(arguments.understanding) + bool(arguments.judge)
    check_gpu(config["model"], drawing_memory(config, models=1 + others), "evaluation.batch_size")
    model = load_model(arguments.model, config["model"])
    understanding = load_model(arguments.understanding, config["model"]) if arguments.understanding else model
    judge = arguments.judge and load_model(arguments.judge, config["model"])

    own, codes, images = draw_images(
        model,
        prompts,
        config["images_per_prompt"],
        "image",
        "evaluation",
        arguments.seed,
        config,
        understanding,
        judge,
        truth_known=truth_by == "oracle",
        shard=shard,
        keep_images=True,
    )
    probe_images = np.load(arguments.prompts / "probe_images.npy", allow_pickle=False)
    probe = pd.read_csv(arguments.prompts / "probe.csv")
    part = whole_batches(len(probe), config["batch_size"], shard)
    probe = judge_probe(understanding, probe[part], probe_images[part], config, None if arguments.baseline else judge)
    pretrained = None
    if arguments.baseline:
        if judge:  # which is the baseline's and has been asked about these scenes
            asked = pd.read_csv(arguments.baseline / "probe_verdicts.csv")["judge_verdict"]
            probe["judge_verdict"] = asked[probe.index]
        baseline_codes = np.load(arguments.baseline / "codes.npy", allow_pickle=False)
        baseline = pd.read_csv(arguments.baseline / "images.csv")
        part = whole_batches(len(baseline), config["batch_size"], shard)
        pretrained = judge_pretrained_images(understanding, baseline[part], baseline_codes[part], config)
    if truth_by != "oracle":
        del model, understanding, judge
        gc.collect()
        torch.cuda.empty_cache()
        answers = arguments.output.with_name("judge_answers")
        drawn_in = drawing_order(own).argsort() // config["batch_size"]  # so that shards are judged as the whole is
        own = judge_images(images, own, config["judge"], arguments.judge_models, answers, drawn_in)

    numbered = {"index": bool(arguments.shard), "index_label": "row"}
    with atomic_directory(arguments.output) as folder:
        own.to_csv(folder / "images.csv", **numbered)
        np.save(folder / "codes.npy", codes, allow_pickle=False)
        np.save(folder / "images.npy", images[own["image"] == 0], allow_pickle=False)
        probe.to_csv(folder / "probe_verdicts.csv", **numbered)
        if pretrained is not None:
            pretrained.to_csv(folder / "pretrained_verdicts.csv", **numbered)
        write_registered(folder)
        if not arguments.shard:
            summarised = own, probe, pretrained, config, arguments.seed, arguments.model, arguments.baseline
            write_summary(folder, *summarised)


if __name__ == "__main__":
    main()
