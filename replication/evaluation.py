"""Evaluation of one model: generation, the Nonunified score, its verdicts on held-out scenes and on the images of the
pre-trained model (paper sections 1, 2 and 4.5). An imperfect judge is asked about the same images beside the oracle.

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
from replication.candidates import draw_images
from replication.claim_registry import write_registered
from replication.files import atomic_directory
from replication.judges.panel import judge_images, judges_needed
from replication.models.interface import load_model
from replication.provenance import write_provenance
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
    return probe.drop(columns="prompt").join(verdicts)


def judge_pretrained_images(model, baseline, codes, config):
    """Verdicts before and after on the images that the pre-trained model made of the same prompts.

    baseline: frame of the pre-trained model's own images (images.csv). codes: (n, T), their codes.
    Returns a frame prompt_id, subtask, stratum, image, what the judges say of it (truth, judge_verdict), before, after. A
    verdict on the *new* images would say nothing about understanding, because the images change with the model.
    """
    batches = _batches(torch.from_numpy(codes).long(), config, "images of the pre-trained model")
    after = _verdicts(model, map(model.decode_images, batches), baseline["prompt"], config)
    judges = [column for column in metrics.JUDGES.values() if column in baseline]
    verdicts = baseline[["prompt_id", "subtask", "stratum", "image", *judges]]
    return verdicts.assign(before=baseline["verdict"], after=after["verdict"])


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


def _model_name(config, arguments):
    """`<name>-<base>`: the pre-trained model's folder is base=<base>; what was trained from it inherits its name."""
    if arguments.baseline:
        return pd.read_csv(arguments.baseline / "metrics.csv")["model"][0]
    return f"{config['model']['name']}-{arguments.model.name.removeprefix('base=')}"


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
    parser.add_argument("--output", type=Path, required=True, help="folder of the evaluation files")
    arguments = parser.parse_args()
    config, number = arguments.config, arguments.config["images_per_prompt"]
    prompts, truth_by = pd.read_csv(arguments.prompts / "evaluation.csv"), config["judge"]["name"]
    if truth_by != "oracle":
        judges_needed(prompts, config["judge"])  # before hours are spent
    model = load_model(arguments.model, config["model"])
    understanding = load_model(arguments.understanding, config["model"]) if arguments.understanding else model
    judge = arguments.judge and load_model(arguments.judge, config["model"])

    stream, judges = ("image", "evaluation", arguments.seed), (understanding, judge)
    own, codes = draw_images(model, prompts, number, *stream, config, *judges, truth_known=truth_by == "oracle")
    probe_images = np.load(arguments.prompts / "probe_images.npy", allow_pickle=False)
    probe = pd.read_csv(arguments.prompts / "probe.csv")
    probe = judge_probe(understanding, probe, probe_images, config, None if arguments.baseline else judge)
    pretrained = None
    if arguments.baseline:
        if judge:  # which is the baseline's and has been asked about these scenes
            probe["judge_verdict"] = pd.read_csv(arguments.baseline / "probe_verdicts.csv")["judge_verdict"]
        baseline_codes = np.load(arguments.baseline / "codes.npy", allow_pickle=False)
        baseline = pd.read_csv(arguments.baseline / "images.csv")
        pretrained = judge_pretrained_images(understanding, baseline, baseline_codes, config)
    identity = {key: config[key] for key in ("preset", "experiment", "method")}
    identity |= {"model": _model_name(config, arguments), "seed": arguments.seed}
    first = model.decode_images(torch.from_numpy(codes[::number]).long())
    if truth_by != "oracle":
        images = first if number == 1 else model.decode_images(torch.from_numpy(codes).long())
        del model, understanding, judge, judges
        gc.collect()
        torch.cuda.empty_cache()
        answers = arguments.output.with_name("judge_answers")
        own = judge_images(images, own, config["judge"], arguments.judge_models, answers)

    with atomic_directory(arguments.output) as folder:
        own.to_csv(folder / "images.csv", index=False)
        np.save(folder / "codes.npy", codes, allow_pickle=False)
        np.save(folder / "images.npy", first, allow_pickle=False)
        probe.to_csv(folder / "probe_verdicts.csv", index=False)
        if pretrained is not None:
            pretrained.to_csv(folder / "pretrained_verdicts.csv", index=False)
        metrics.summarise(own, probe, pretrained, identity, truth_by).to_csv(folder / "metrics.csv", index=False)
        write_provenance(folder / "provenance.json", config, arguments.seed)
        write_registered(folder)


if __name__ == "__main__":
    main()
