"""Data-quality check: would this training set improve the model, or degrade it? Asked before anything is trained.

python -m replication.quality_check --candidates FOLDER --training-set training_set.csv --labels labels.csv --output FILE

The paper (section 7) calls for such a check, because the Nonunified score cannot tell co-degradation from co-improvement,
and leaves open what it is. Here it is four contrasts, each with the sign of its 95 % interval as its answer and no threshold:

advantage       right images among labelled training samples (precision_chosen) less those among labelled candidates (own_right):
                who trains on images that are right less often than the model's own gets worse
pair_margin     for DPO, pairs with a right chosen and a wrong rejected image, less the reverse
discrimination  the share of candidates that the supervision accepts, less its yes-rate on mismatched pairs (candidates with
                another candidate's prompt; some of them hold by chance)
kappa           Cohen's agreement of the supervision's verdicts with an independent judge

FOLDER holds candidates.csv and, where --model is given, codes.npy (replication.candidates writes both). A person labels:
where labels.csv does not exist it is written as a sheet with an empty column `label` to fill in, with --model the images
beside it. It does not say which images the model prefers: pairs of image and prompt stand once each, in random order. Without --labels the embedded world's oracle labels. Without --model there is no discrimination, without --judge
no kappa.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from tqdm import tqdm

from replication.config import load_stage
from replication.corruption import corrupt_verdicts, named_rng, other_prompts
from replication.files import atomic_directory, atomic_file
from replication.judges import oracle
from replication.metrics import COLUMNS, NO_JUDGE
from replication.models.interface import load_model
from replication.statistics import bootstrap_ci, difference_interval, kappa_ci, wilson_interval
from replication.verdicts import own_verdicts

PAIR = ["image", "prompt"]  # what a person sees of a row
SHEET = ["part", "sample", *PAIR]
MEASURES = ["metric", "value", "n", "low", "high"]
JUDGED = ("precision_chosen", "own_right", "advantage", "pair_margin", "answer")
CONTRASTS = ("advantage", "pair_margin", "discrimination", "kappa")
ANSWERS = {-1: "Do not train on this set.", 0: "This check cannot tell.", 1: "This set is fit to train on."}


def labelling_sheet(candidates, training_set, number, rng):
    """What is to be labelled: `number` random training samples and as many random candidates, or all where there are fewer.

    Returns a frame part (chosen, rejected or candidate), sample (row of the training set; a candidate's own), image (row of
    candidates.csv) and prompt.
    """
    samples = training_set.sample(min(number, len(training_set)), random_state=rng)
    own = candidates[["prompt"]].sample(min(number, len(candidates)), random_state=rng)
    frames = [samples.assign(part=part, image=samples[part]) for part in ("chosen", "rejected") if part in samples]
    frames.append(own.assign(part="candidate", image=own.index))
    return pd.concat(frames).rename_axis("sample").reset_index()[SHEET]


def share_row(metric, event):
    """A share as a row of `MEASURES`, with its Wilson interval."""
    k, n = int(np.sum(event)), len(event)
    return metric, k / n, n, *wilson_interval(k, n)


def difference_row(metric, first, second):
    """The difference of two share rows as a row of `MEASURES`."""
    (_, p, n, *_), (_, q, m, *_) = first, second
    return metric, p - q, n + m, *difference_interval(p * n, n, q * m, m)


def data_measures(labelled):
    """Rows of `MEASURES` that labels of the training set give; `labelled` is the sheet with a column label (1: right)."""
    label = {part: rows.set_index("sample")["label"] for part, rows in labelled.groupby("part")}
    rows = [share_row("precision_chosen", label["chosen"]), share_row("own_right", label["candidate"])]
    rows.append(difference_row("advantage", *rows))
    if "rejected" in label:
        margins = label["chosen"] - label["rejected"]
        interval = bootstrap_ci(margins.to_numpy()[:, None], statistic=np.mean)
        rows.append(("pair_margin", margins.mean(), len(margins), *interval))
    return rows


def judge_measures(verdicts, on_mismatched):
    """Rows of `MEASURES` from the supervision's verdicts on candidates and on the same images with other prompts."""
    rows = [share_row("accepted_share", verdicts), share_row("mismatched_yes_rate", on_mismatched)]
    return [*rows, difference_row("discrimination", *rows)]


def answer(measures):
    """1 (train), -1 (do not) or 0 (cannot tell): the worst sign of the intervals of all contrasts in the frame `measures`."""
    shown = measures[measures["metric"].isin(CONTRASTS)]
    return int(np.min((shown["low"] > 0).astype(int) - (shown["high"] < 0).astype(int)))


def report(measures):
    """The answer and its reasons as one short paragraph."""
    rows = measures.set_index("metric")

    def percent(metric):
        value, low, high = 100 * rows.loc[metric, ["value", "low", "high"]].astype(float)
        return f"{value:.0f} % [{low:.0f}, {high:.0f}]"

    def judged(metric, better, worse):
        low, high = rows.loc[metric, ["low", "high"]]
        return better if low > 0 else worse if high < 0 else "neither provably more nor less"

    sentences = [ANSWERS[answer(measures)]]
    sentences.append(
        f"Of {rows.loc['precision_chosen', 'n']:.0f} labelled training samples {percent('precision_chosen')} are right, "
        f"{judged('advantage', 'more', 'less')} than the {percent('own_right')} of the model's own images."
    )
    if "pair_margin" in rows.index:
        sentences.append(
            f"Pairs with a right chosen and a wrong rejected image are {judged('pair_margin', 'more', 'fewer')} than the "
            f"reverse (a difference of {percent('pair_margin')} of all)."
        )
    if "discrimination" in rows.index:
        sentences.append(
            f"The supervision accepts {percent('accepted_share')} of the candidates, "
            f"{judged('discrimination', 'more', 'less')} than the {percent('mismatched_yes_rate')} of images with another "
            "one's prompt."
        )
    if "kappa" in rows.index:
        value, low, high = rows.loc["kappa", ["value", "low", "high"]]
        sentences.append(
            f"It agrees with an independent judge {judged('kappa', 'more', 'less')} than by chance (kappa {value:.2f} "
            f"[{low:.2f}, {high:.2f}]). "
        )
    return " ".join(sentences).strip()


def pictures(model, codes, pairs, batch_size):
    """Batches of (images, prompts) of the frame `pairs` (image, prompt); `model` decodes `codes`."""
    for start in tqdm(range(0, len(pairs), batch_size), desc="pairs of image and prompt"):
        batch = pairs.iloc[start : start + batch_size]
        yield model.decode_images(torch.from_numpy(codes[batch["image"]]).long()), batch["prompt"]


def oracle_labels(model, codes, pairs, batch_size):
    """The oracle's answers (n,) about the images of `pairs` with the prompts that stand beside them there."""
    batches = pictures(model, codes, pairs, batch_size)
    return np.concatenate([oracle.judge(images, prompts) for images, prompts in batches]).astype(int)


def verdicts_of(judge, model, codes, pairs, config):
    """`own_verdicts` of `judge` on `pairs`, whose images `model` made."""
    batches = pictures(model, codes, pairs, config["batch_size"])
    return pd.concat([own_verdicts(judge, images, prompts, config) for images, prompts in batches], ignore_index=True)


def mismatched_verdicts(model, codes, pairs, config, seed):
    """The supervision's verdicts on the images of `pairs` with one another's prompts, corrupted as the candidates' are."""
    rng = named_rng(seed, "mismatched pairs")
    mismatched = pairs.assign(prompt=pairs["prompt"].to_numpy()[other_prompts(pairs["prompt"], rng)])
    verdicts = verdicts_of(model, model, codes, mismatched, config)
    if config["corruption"] == "oracle":
        verdicts["truth"] = oracle_labels(model, codes, mismatched, config["batch_size"])
    return corrupt_verdicts(verdicts, config["corruption"], config["corruption_strength"], rng)["verdict"]


def read_table(path, columns):
    """The CSV `path`. Raises SystemExit when it is not there or has not these columns."""
    if not path.exists():
        raise SystemExit(f"There is no {path}; it must be a CSV with the columns {', '.join(columns)}.")
    table = pd.read_csv(path)
    missing = [column for column in columns if column not in table]
    if missing:
        raise SystemExit(f"{path} has no column {', '.join(missing)}; it needs {', '.join(columns)}.")
    return table


def write_sheet(path, pairs, model, codes, batch_size):
    """Write the pairs for a person to label and, where there is a model, their images as `<row of codes.npy>.png` beside them.
    Ends in SystemExit, which says so."""
    where = "in your candidates"
    if model:
        where = path.with_name(f"{path.stem}_images")
        with atomic_directory(where) as folder:
            images = (image for batch, _ in pictures(model, codes, pairs, batch_size) for image in batch)
            for row, image in zip(pairs["image"], images, strict=True):
                Image.fromarray(image).save(folder / f"{row}.png")
    with atomic_file(path) as partial:
        pairs.assign(label="").to_csv(partial, index=False)
    raise SystemExit(
        f"{path} is new: in its {len(pairs)} rows write label 1 where the image (its row {where}) shows the prompt, 0 where "
        "not, then run this again."
    )


def read_labels(path, sheet):
    """`sheet` with a person's labels of its pairs. Raises SystemExit unless all are given, on these pairs."""
    labelled = read_table(path, [*PAIR, "label"])
    given, asked = (rows[PAIR].sort_values(PAIR, ignore_index=True) for rows in (labelled, sheet.drop_duplicates(PAIR)))
    if not given.equals(asked):
        raise SystemExit(f"{path} belongs to another training set, seed or number of labels; give it another name.")
    undone = (~labelled["label"].isin([0, 1])).sum()
    if undone:
        raise SystemExit(f"{path} has {undone} rows whose label is neither 0 nor 1; fill them in and run this again.")
    return sheet.merge(labelled, on=PAIR, validate="many_to_one")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--config", type=json.loads, help="JSON of the quality_check section; default: that of configs/"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--candidates", type=Path, required=True, help="folder with candidates.csv (and codes.npy)")
    parser.add_argument("--training-set", type=Path, required=True, help="CSV: prompt, chosen, for DPO rejected (rows)")
    parser.add_argument("--labels", type=Path, help="CSV of a person's labels; without it the oracle labels")
    parser.add_argument("--model", type=Path, help="checkpoint of the model that made and judged the candidates")
    parser.add_argument("--judge", type=Path, nargs="?", help="checkpoint of an independent judge")
    parser.add_argument("--output", type=Path, required=True, help="CSV of measures to write")
    arguments = parser.parse_args()
    config, seed = arguments.config or load_stage("quality_check", "tiny", experiment="sft"), arguments.seed
    if not arguments.model and (arguments.judge or not arguments.labels):
        raise SystemExit("Give --labels or --model: the oracle and a judge need the model that decodes the images.")

    needed = ["prompt", "verdict", "alignment_logit"] if arguments.model else ["prompt"]
    own = read_table(arguments.candidates / "candidates.csv", needed)
    training_set = read_table(arguments.training_set, ["prompt", "chosen"])
    rows = training_set[[part for part in ("chosen", "rejected") if part in training_set]]
    if not rows.isin(own.index).all(axis=None):
        raise SystemExit(
            f"{arguments.training_set} names rows that candidates.csv does not have (0 to {len(own) - 1}); give the folder of "
            "candidates that it was selected from."
        )
    sheet = labelling_sheet(own, training_set, config["labelled"], named_rng(seed, "labelling sheet"))
    model, codes = None, None
    if arguments.model:
        model = load_model(arguments.model, config["model"])
        codes = np.load(arguments.candidates / "codes.npy", allow_pickle=False)
    if arguments.labels and not arguments.labels.exists():
        pairs = sheet[PAIR].drop_duplicates().sample(frac=1, random_state=named_rng(seed, "order of labelling"))
        write_sheet(arguments.labels, pairs, model, codes, config["batch_size"])
    if arguments.labels:
        labelled = read_labels(arguments.labels, sheet)
    else:
        labelled = sheet.assign(label=oracle_labels(model, codes, sheet, config["batch_size"]))
    rows = data_measures(labelled)
    if model:
        corruption = config["corruption"], config["corruption_strength"]
        supervised = corrupt_verdicts(own, *corruption, named_rng(seed, config["corruption"]))
        pairs = own[["prompt"]].assign(image=own.index)
        pairs = pairs.sample(min(config["unlabelled"], len(own)), random_state=named_rng(seed, "judged candidates"))
        verdicts = supervised["verdict"].loc[pairs.index].to_numpy()
        rows += judge_measures(verdicts, mismatched_verdicts(model, codes, pairs, config, seed))
    if arguments.judge:
        judge = load_model(arguments.judge, config["model"])
        agreement = kappa_ci(verdicts, verdicts_of(judge, model, codes, pairs, config)["verdict"])
        rows.append(("kappa", agreement[0], len(pairs), *agreement[1:]))
    measures = pd.DataFrame(rows, columns=MEASURES)
    print(report(measures))
    measures.loc[len(measures)] = ("answer", answer(measures), measures["metric"].isin(CONTRASTS).sum(), np.nan, np.nan)
    labelled_by = "person" if arguments.labels else "oracle"
    measures["judge"] = np.where(measures["metric"].isin(JUDGED), labelled_by, NO_JUDGE)
    if arguments.judge:  # which says nothing in the answer
        by_judge = sheet.assign(label=verdicts_of(judge, model, codes, sheet, config)["verdict"])
        by_judge = pd.DataFrame(data_measures(by_judge), columns=MEASURES).assign(judge="embedded")
        measures = pd.concat([measures, by_judge], ignore_index=True)

    name = config["model"]["name"]
    identity = {key: config[key] for key in ("preset", "experiment", "method")} | {"seed": seed, "subtask": "overall"}
    identity["model"] = f"{name}-{arguments.model.name.removeprefix('base=')}" if arguments.model else name
    with atomic_file(arguments.output) as partial:
        measures.assign(**identity)[[*COLUMNS, "low", "high"]].to_csv(partial, index=False)


if __name__ == "__main__":
    main()
