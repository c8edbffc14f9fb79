"""The paper's quantities (arXiv 2507.16663) as pure functions of verdicts and truths.

Notation: `verdict` is the model's own answer pi_und(x, q(y)) in {0, 1}, `truth` a judge's: the exact oracle's, or that of an
imperfect judge (the paper's Qwen). All arguments are equally long one-dimensional arrays of 0 and 1. A share is returned as
`(value, n)` with n its denominator; a share of nothing is (nan, 0).
"""

from itertools import product

import numpy as np
import pandas as pd

IDENTITY = ["preset", "experiment", "model", "method", "seed"]
COLUMNS = [*IDENTITY, "subtask", "metric", "value", "n", "judge"]
JUDGES = {"oracle": "truth", "embedded": "judge_verdict"}  # and the column of images.csv with what each says
NO_JUDGE = "none"  # in the column judge: the metric asks none, but own verdicts alone, or scenes with known labels
BENCHMARK = "benchmark"  # there: the metric is the benchmark's own score of images


def share(event, among=None):
    """P(event | among) as (value, n); (nan, 0) when nothing is in `among`."""
    event = np.asarray(event, bool)
    chosen = event if among is None else event[np.asarray(among, bool)]
    return (float(chosen.mean()), len(chosen)) if len(chosen) else (float("nan"), 0)


def generation(truth):
    """Share of images for which the prompt holds (Gen of Table 1, with `truth` for the benchmark's judge)."""
    return share(np.asarray(truth) == 1)


def nonunified(verdict):
    """Nonunified score: E 1[pi_und(x, q(y)) = 0] over the model's own images x = pi_gen(y). Lower is better."""
    return share(np.asarray(verdict) == 0)


def weak_generation(truth, verdict):
    """WeakGen = P(the judge rejects too | the model rejects); its complement is misunderstanding (section 3, Fig. 3)."""
    return share(np.asarray(truth) == 0, among=np.asarray(verdict) == 0)


def false_positive_rate(truth, verdict):
    """P(verdict = 1 | truth = 0): mismatched images that the model accepts (section 4, co-improvement)."""
    return share(np.asarray(verdict) == 1, among=np.asarray(truth) == 0)


def false_negative_rate(truth, verdict):
    """P(verdict = 0 | truth = 1): correct images that the model rejects."""
    return share(np.asarray(verdict) == 0, among=np.asarray(truth) == 1)


def balanced_accuracy(truth, verdict):
    """1 - (false_positive_rate + false_negative_rate) / 2; (nan, 0) unless both truths occur. Chance is 0.5."""
    (false_positives, negatives), (false_negatives, positives) = (
        false_positive_rate(truth, verdict),
        false_negative_rate(truth, verdict),
    )
    if not (negatives and positives):
        return float("nan"), 0
    return 1 - (false_positives + false_negatives) / 2, negatives + positives


def rogan_gladen(share, false_positives, false_negatives):
    """The true share behind the share that a judge accepts (Rogan and Gladen, Am. J. Epidemiol. 1978), if its error rates,
    measured elsewhere, hold here. Numbers or arrays; not clipped to [0, 1], so that a mean of many is not biased; nan where the
    judge accepts right images no more often than wrong ones.
    """
    informed = 1 - np.asarray(false_positives, float) - false_negatives
    return (share - np.asarray(false_positives, float)) / np.where(informed > 0, informed, np.nan)


def win_rate(truth, before, after):
    """Understanding win rate (Und of Table 1): among images of the pre-trained model on which the verdicts before and
    after self-improvement differ, the share where the new one agrees with the judge.

    (0.5, 0) when they never differ: the paper prints 50.00 there.
    """
    disagree = np.asarray(before) != np.asarray(after)
    return share(np.asarray(after) == np.asarray(truth), among=disagree) if disagree.any() else (0.5, 0)


def triple_counts(truth, before, after):
    """Counts of each (truth, before, after), Fig. 7a; (0, 1, 0) is a corrected false positive.

    Returns a dict of all eight triples, such as {(0, 1, 0): 17, ...}.
    """
    triples = list(zip(truth, before, after, strict=True))
    return {triple: triples.count(triple) for triple in product((0, 1), repeat=3)}


def benchmark_score(score):
    """Mean of a benchmark's scores in [0, 1] (Gen of Table 1 at the paper scale; paper 4.5)."""
    return (float(np.mean(score)), len(score)) if len(score) else (float("nan"), 0)


def judged(truth, verdict):
    """The metrics of own images that need a judge: {metric: (value, n)}."""
    return {
        "generation": generation(truth),
        "weak_generation": weak_generation(truth, verdict),
        "false_positive_rate": false_positive_rate(truth, verdict),
        "false_negative_rate": false_negative_rate(truth, verdict),
    }


def changed(truth, before, after):
    """Win rate and triple counts on images of the pre-trained model: {metric: (value, n)}."""
    counts = {"triple_{}{}{}".format(*triple): n for triple, n in triple_counts(truth, before, after).items()}
    return {"understanding_win_rate": win_rate(truth, before, after)} | {
        name: (n, len(truth)) for name, n in counts.items()
    }


def judge_errors(parts, scenes):
    """The imperfect judge itself: its errors on labelled `scenes` and, by the oracle, on own images (frames by suffix), and the
    generation score that it gives, corrected by the former. {metric: (value, n)}."""
    measures, column = (balanced_accuracy, false_positive_rate, false_negative_rate), JUDGES["embedded"]
    values = {f"judge_probe_{of.__name__}": of(scenes["label"], scenes[column]) for of in measures}
    errors = [values[f"judge_probe_{of.__name__}"][0] for of in measures[1:]]
    for suffix, frame in parts.items():
        values |= {f"judge_{of.__name__}{suffix}": of(frame["truth"], frame[column]) for of in measures}
        score, n = generation(frame[column])
        values[f"generation_corrected{suffix}"] = float(rogan_gladen(score, *errors)), n
    return values


def groups_of(images):
    """{group: its subtasks}: the strata, "overall" and, where the prompts come from benchmarks, "overall_<benchmark>"."""
    groups = {**images.groupby("stratum", sort=False)["subtask"].unique(), "overall": images["subtask"].unique()}
    if "benchmark" in images:
        by_benchmark = images.groupby("benchmark", sort=False)["subtask"].unique()
        groups |= {f"overall_{benchmark}": subtasks for benchmark, subtasks in by_benchmark.items()}
    return groups


def summarise(images, probe, pretrained_verdicts, identity, truth_by="oracle"):
    """All metrics of one evaluated model as rows of `COLUMNS`, per subtask, per stratum and overall (`groups_of`).

    images: frame with columns subtask, stratum, image, truth, verdict (the model's own images). Metrics of own images use
        image 0 of each prompt, as in the paper; the same name with `_n` uses all images. Where it has a column score, that
        is the benchmark's, whose mean is then generation, and the share that the judge accepts is accepted_by_judge; where it
        has a column truth_parsed, the share of the judge's answers without a score is judge_unparsed.
    probe: frame with columns subtask, label, verdict (held-out labelled scenes; none at the paper scale). Where verdicts are
        written answers, both frames have a column parsed, and the share of those that say no score is a metric, too.
    pretrained_verdicts: frame with columns subtask, truth, before, after, or None for the pre-trained model itself.
    identity: values of preset, experiment, model, method and seed. truth_by: the judge whose word is the truth.

    Metrics that need a judge are given once for each of `JUDGES`. The imperfect one is there when all three frames have a
    column judge_verdict; its own errors are metrics judge_*, and generation_corrected is its generation score without them.
    A stratum's and the overall value are plain means over the subtasks where the metric is defined (the paper's Overall
    cells), with n summed; triple counts are summed. Undefined shares are kept as value nan, n 0.
    """
    rows = []
    for subtask in images["subtask"].unique():
        own = images[images["subtask"] == subtask]
        scenes = probe[probe["subtask"] == subtask]
        parts = {"": own[own["image"] == 0], "_n": own}
        for suffix, frame in parts.items():
            rows.append((subtask, f"nonunified{suffix}", *nonunified(frame["verdict"]), NO_JUDGE))
            if "parsed" in frame:
                rows.append((subtask, f"unparsed{suffix}", *share(frame["parsed"] == 0), NO_JUDGE))
        label, verdict = scenes["label"].to_numpy(), scenes["verdict"].to_numpy()
        rows += [
            (subtask, "balanced_accuracy", *balanced_accuracy(label, verdict), NO_JUDGE),
            (subtask, "probe_false_positive_rate", *false_positive_rate(label, verdict), NO_JUDGE),
            (subtask, "probe_false_negative_rate", *false_negative_rate(label, verdict), NO_JUDGE),
        ]
        if "parsed" in scenes:
            rows.append((subtask, "probe_unparsed", *share(scenes["parsed"] == 0), NO_JUDGE))
        if "score" in images:
            for suffix, frame in parts.items():
                rows.append((subtask, f"generation{suffix}", *benchmark_score(frame["score"]), BENCHMARK))
        if "truth_parsed" in images:
            rows.append((subtask, "judge_unparsed_n", *share(own["truth_parsed"] == 0), truth_by))
        for judge, column in {truth_by: "truth", "embedded": JUDGES["embedded"]}.items():
            if column in images:
                for suffix, frame in parts.items():
                    values = judged(frame[column], frame["verdict"])
                    if "score" in images:
                        values["accepted_by_judge"] = values.pop("generation")
                    rows += [(subtask, f"{metric}{suffix}", *value, judge) for metric, value in values.items()]
            if pretrained_verdicts is not None and column in pretrained_verdicts:
                old = pretrained_verdicts[pretrained_verdicts["subtask"] == subtask]
                values = changed(old[column], old["before"], old["after"])
                rows += [(subtask, metric, *value, judge) for metric, value in values.items()]
        if JUDGES["embedded"] in images:
            values = judge_errors(parts, scenes)
            rows += [(subtask, metric, *value, "embedded") for metric, value in values.items()]
    per_subtask = pd.DataFrame(rows, columns=["subtask", "metric", "value", "n", "judge"])
    frames = [per_subtask]
    for group, members in groups_of(images).items():
        grouped = per_subtask[per_subtask["subtask"].isin(members)].groupby(["metric", "judge"], sort=False)
        means = grouped.agg(value=("value", "mean"), n=("n", "sum"))
        counts = means.index.get_level_values("metric").str.startswith("triple_")
        means.loc[counts, "value"] = grouped["value"].sum()[counts]
        frames.append(means.reset_index().assign(subtask=group))
    return pd.concat(frames, ignore_index=True).assign(**identity)[COLUMNS]
