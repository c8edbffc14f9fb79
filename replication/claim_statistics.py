"""What a claim measures: one function per statistic of configs/claims.yaml, and its estimate, interval and p-value.

The results at hand are a dict of frames with the columns experiment, model (base model), seed and subtask:
    images      the models' own images: stratum, prompt_id, image, truth, verdict; at the paper's scale also the benchmark's
                score in [0, 1], which is then generation, as in metrics.csv, and truth is what a judge says
    pretrained  verdicts on the pre-trained model's images: prompt_id, truth, before, after
    probes      verdicts on held-out labelled scenes: probe_id, label, verdict; scenes 2k and 2k + 1 are a right one and a
                near miss of one prompt
    pools       discarded prompts of a curriculum run: prompt_id, unlocked (0: still discarded)
    examples    images of the pre-trained model with a measured kernel: group, prompt_id, delta_* (their change by the whole
                training), own_* (cosines of the gradients of generation and of understanding of the example)
    pairs       an example (its number in the run) and a sample of one training batch: similarities, cosines of gradients

All but two statistics are made of ratios: a part is a frame model, seed, subtask, unit, top, bottom, and its value
100 sum(top) / sum(bottom). ("all", parts) holds where every part does, ("any", parts) where one does.
"""

from functools import partial

import numpy as np
import pandas as pd
from scipy import stats

from replication.resampling import (
    crossed_bootstrap,
    crossed_correlation,
    leads,
    permuted_correlation_test,
    permuted_lead_test,
    resampled_lead,
    sign_flip_test,
)
from replication.scenes import STRATA
from replication.statistics import LEVEL

RUN = ["model", "seed", "subtask"]


def of(frame, experiment):
    """The rows of one experiment."""
    return frame[frame["experiment"] == experiment]


def part(frame, unit, top, bottom=1):
    """Sums of `top` and `bottom` (series on the rows of `frame`, or numbers) in each run and each unit."""
    rows = frame[RUN].assign(unit=unit, top=top, bottom=bottom).astype({"top": float, "bottom": float})
    return rows.groupby([*RUN, "unit"])[["top", "bottom"]].sum().reset_index()


def what_is_missing(claim, data):
    """What a claim is about and the results of its experiments do not hold, as a sentence; None where they hold all."""
    of_claim, statistic = claim["of"], claim["statistic"]
    if statistic in ("nonunified_by_stratum", "weak_generation_by_stratum"):
        absent = [
            stratum
            for stratum in STRATA
            if not (of(data["images"], of_claim["experiment"])["stratum"] == stratum).any()
        ]
        if absent:
            return f"needs every stratum: no prompts of the {' and the '.join(absent)} one were evaluated"
    scenes = statistic == "hidden_harm" or "balanced_accuracy" in of_claim.get("metrics", [])
    if scenes and not data["probes"]["experiment"].isin(claim["needs"]).any():
        return "needs held-out labelled scenes: none were judged"
    if (
        of_claim.get("gap_from") == "the other images"
        and not (of(data["images"], of_claim["before"])["image"] > 0).any()
    ):
        return "needs several images of a prompt: the pre-trained model drew one"
    return None


def nonunified_by_stratum(data, experiment):
    """The share of a model's own images that it rejects, in every stratum."""
    strata = of(data["images"], experiment).groupby("stratum")
    return "all", [part(images, images["prompt_id"], images["verdict"] == 0) for _, images in strata]


def weak_generation_by_stratum(data, experiment):
    """The share of a model's rejected own images that are truly wrong, in every stratum."""
    parts = []
    for _, images in of(data["images"], experiment).groupby("stratum"):
        rejected = images["verdict"] == 0
        parts.append(part(images, images["prompt_id"], rejected & (images["truth"] == 0), rejected))
    return "all", parts


def change(data, metrics, before, after):
    """The change of every one of `metrics` from one experiment to another, image by image of the same prompt and random
    stream, or scene by scene; over prompts, which is the mean over subtasks where these have equally many."""
    return "all", [difference(level(data, metric, before), level(data, metric, after)) for metric in metrics]


def level(data, metric, experiment):
    """A metric of one experiment: generation and nonunified on the first image of each prompt, as in the paper;
    balanced_accuracy on pairs of a right scene and a near miss, where it is the share of right verdicts."""
    if metric == "balanced_accuracy":
        probes = of(data["probes"], experiment)
        return part(probes, probes["probe_id"] // 2, probes["verdict"] == probes["label"])
    images = of(data["images"], experiment)
    images = images[images["image"] == 0]
    right = images["score"] if "score" in images else images["truth"] == 1
    top = {"generation": right, "nonunified": images["verdict"] == 0}[metric]
    return part(images, images["prompt_id"], top)


def difference(before, after):
    """Parts of `after` less those of `before`, unit by unit of the same runs. Raises SystemExit where one lacks what the other has."""
    paired = before.merge(after, on=[*RUN, "unit", "bottom"], suffixes=("_before", "_after"), validate="one_to_one")
    if not len(before) == len(after) == len(paired):
        raise SystemExit(
            "Two experiments that a claim compares have different runs, prompts or scenes; evaluate both anew."
        )
    return paired.assign(top=paired["top_after"] - paired["top_before"])


def win_rate(data, experiment):
    """Of the changed verdicts on the pre-trained model's images, the share that is right afterwards."""
    old = of(data["pretrained"], experiment)
    changed = old["before"] != old["after"]
    return "all", [part(old, old["prompt_id"], changed & (old["after"] == old["truth"]), changed)]


def false_positive_lead(data, experiment):
    """Of the changed verdicts, the share of (truth, before, after) = (0, 1, 0) minus that of each other triple."""
    old = of(data["pretrained"], experiment)
    changed = old["before"] != old["after"]
    corrected = changed & (old["truth"] == 0) & (old["before"] == 1)
    parts = []
    for truth, before in ((0, 0), (1, 0), (1, 1)):
        other = changed & (old["truth"] == truth) & (old["before"] == before)
        parts.append(part(old, old["prompt_id"], corrected.astype(int) - other, changed))
    return "all", parts


def hidden_harm(data, before, arms):
    """In any arm: the Nonunified score and, of generation and understanding, any one change the claimed way."""
    parts = []
    for arm in arms:
        score, generation, understanding = (
            difference(level(data, metric, before), level(data, metric, arm))
            for metric in ("nonunified", "generation", "balanced_accuracy")
        )
        parts.append(("all", [score, ("any", [generation, understanding])]))
    return "any", parts


def unlocked_lead(data, experiment, alone):
    """Of the discarded prompts, the share that `experiment` finds an accepted image for, minus that of every other."""
    pools = {name: of(data["pools"], name) for name in (experiment, *alone)}
    unlocked = {name: part(pool, pool["prompt_id"], pool["unlocked"] > 0) for name, pool in pools.items()}
    return "all", [difference(unlocked[name], unlocked[experiment]) for name in alone]


def fewer_changed_verdicts(data, before, after):
    """Of the verdicts on the pre-trained model's images that `before` changes, the share that `after` changes fewer."""
    levels = []
    for experiment in (before, after):
        old = of(data["pretrained"], experiment)
        levels.append(part(old, old["prompt_id"], old["before"] != old["after"]))
    both = difference(*levels)
    return "all", [both.assign(top=-both["top"], bottom=both["top_before"])]


def own_cosines(data, experiment, quantities):
    """The mean cosine of the gradients of log pi(x | y) and of each of `quantities` of the same example."""
    examples = of(data["examples"], experiment)
    return "all", [part(examples, examples["prompt_id"], examples[f"own_{quantity}"]) for quantity in quantities]


def proxy_ranks(data, experiment):
    """The mean over examples of Spearman's correlation, over the training samples of a batch, of the kernel with the paper's
    proxy, the similarity of prompts and of images, here the sum of their ranks; 0 where one of both does not vary."""
    by = ["seed", "example"]
    examples, pairs = of(data["examples"], experiment), of(data["pairs"], experiment).set_index(by)
    proxy = sum(pairs[f"{name}_similarity"].groupby(by).rank() for name in ("text", "image"))
    ranks = pd.DataFrame(
        {"proxy": proxy.groupby(by).rank(), "kernel": pairs["generation-generation"].groupby(by).rank()}
    )
    ranks -= ranks.groupby(by).mean()
    products = (ranks["proxy"] * ranks["kernel"]).groupby(by).sum()
    rho = (products / (ranks**2).groupby(by).sum().prod(axis=1) ** 0.5).replace([np.inf, -np.inf], np.nan).fillna(0)
    example = [examples["seed"], examples.groupby("seed").cumcount()]
    return "all", [part(examples, examples["prompt_id"], rho.loc[pd.MultiIndex.from_arrays(example)].to_numpy())]


def same_signs(data, experiment, quantities):
    """The share of examples of which log pi(x | y) and each of `quantities` change with one sign."""
    examples = of(data["examples"], experiment)
    rises = {name: np.sign(examples[f"delta_{name}"]) for name in ("generation", *quantities)}
    same = [rises["generation"] == rises[quantity] for quantity in quantities]
    return "all", [part(examples, examples["prompt_id"], one) for one in same]


def corrected_lead(data, experiment):
    """Falls of log pi(x | y) of false positives, and whether they were corrected: a frame model, seed, fall, corrected."""
    examples = of(data["examples"], experiment)
    chosen = examples[examples["group"].isin(["corrected", "not_corrected"])]
    corrected = chosen["group"] == "corrected"
    return chosen[["model", "seed"]].assign(fall=-chosen["delta_generation"], corrected=corrected)


def gap_correlation(data, before, after, gap_from):
    """Initial Nonunified score and gain in generation, each (base models, subtasks) in per cent, means over runs."""
    images = of(data["images"], before)
    first = images["image"] == 0
    measured = images[~first if gap_from == "the other images" else first]
    gap = 100 * (measured["verdict"] == 0).groupby([measured["model"], measured["subtask"]]).mean().unstack()
    gain = change(data, ["generation"], before, after)[1][0]
    gain = 100 * gain.groupby(["model", "subtask"])["top"].mean().unstack()
    return gap.reindex_like(gain).to_numpy(), gain.to_numpy()


RATIOS = {
    function.__name__: function
    for function in (
        nonunified_by_stratum,
        weak_generation_by_stratum,
        change,
        win_rate,
        false_positive_lead,
        hidden_harm,
        unlocked_lead,
        fewer_changed_verdicts,
        own_cosines,
        proxy_ranks,
        same_signs,
    )
}


def measure(claim, data):
    """(estimate, low, high, p_value) of a claim; nans and 1 where nothing could be counted."""
    sign = 1 if claim["direction"] == "greater" else -1
    measured = {"gap_correlation": correlation, "corrected_lead": lead}.get(claim["statistic"], ratio)
    estimate, replicates, p_value = measured(claim, data, sign)
    if not np.isfinite(estimate):
        return np.nan, np.nan, np.nan, 1.0
    low, high = np.nanquantile(sign * replicates, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(sign * estimate), float(low), float(high), p_value


def ratio(claim, data, sign):
    """Estimate, bootstrap replicates and p-value in the claimed direction: all values are multiplied by `sign`."""
    parts = RATIOS[claim["statistic"]](data, **claim["of"])
    weakest, best = partial(np.min, axis=0), partial(np.max, axis=0)
    estimate = fold(parts, lambda one: sign * value(one), weakest, best)
    replicates = fold(parts, lambda one: sign * resampled(one), weakest, best)
    p_value = fold(parts, lambda one: p_value_of(one, claim["no_effect"], sign), max, bonferroni)
    return estimate, replicates, p_value


def correlation(claim, data, sign):
    """(estimate, replicates for its interval, p-value) of the claim on gain and gap, whose test permutes gains."""
    gap, gain = gap_correlation(data, **claim["of"])
    if not np.isfinite(gap).all() or np.ptp(gap) == 0 or np.ptp(gain) == 0:
        return np.nan, np.nan, 1.0
    estimate = stats.spearmanr(gap.ravel(), gain.ravel()).statistic
    return sign * estimate, sign * crossed_correlation(gap, gain), permuted_correlation_test(sign * gap, gain)


def lead(claim, data, sign):
    """(estimate, replicates for its interval, p-value) of how often a corrected false positive falls by more than another of its run."""
    cases = corrected_lead(data, **claim["of"])
    values, runs = (sign * cases["fall"]).to_numpy(), cases["seed"].to_numpy()
    corrected, models = cases["corrected"].to_numpy(), cases["model"].to_numpy()
    won, pairs = leads(values, corrected, runs)
    if not pairs.sum():
        return np.nan, np.nan, 1.0
    replicates = resampled_lead(values, corrected, runs, models)
    return won.sum() / pairs.sum(), replicates, permuted_lead_test(values, corrected, runs)


def fold(parts, leaf, all_of, any_of):
    """One value of nested parts: `leaf` of every frame, put together by `all_of` and `any_of`."""
    if isinstance(parts, pd.DataFrame):
        return leaf(parts)
    how, members = parts
    values = [fold(member, leaf, all_of, any_of) for member in members]
    return all_of(values) if how == "all" else any_of(values)


def bonferroni(p_values):
    """p-value of any of several parts."""
    return min(1.0, len(p_values) * min(p_values))


def value(one):
    """A part in per cent: the sum of its tops over that of its bottoms."""
    return 100 * one["top"].sum() / one["bottom"].sum() if one["bottom"].sum() else np.nan


def resampled(one):
    """Bootstrap replicates of a part's value: base models, their runs, and units within their subtask are resampled."""
    table = one.pivot_table(
        index=["model", "seed"], columns=["subtask", "unit"], values=["top", "bottom"], fill_value=0
    )
    top, bottom = table["top"], table["bottom"][table["top"].columns]
    models, subtasks = top.index.get_level_values("model"), top.columns.get_level_values("subtask")
    return 100 * crossed_bootstrap(top.to_numpy(), bottom.to_numpy(), models, subtasks)


def p_value_of(one, no_effect, sign):
    excess = sign * (100 * one["top"] - no_effect * one["bottom"])
    return sign_flip_test(excess.groupby([one["subtask"], one["unit"]]).sum().to_numpy())
