"""Claims: each verdict recomputed from the CSV files by other means, changed by other data, and never given too late."""

import json
import re
import shutil
import subprocess
import sys
from functools import cache
from inspect import signature
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy.stats import mannwhitneyu, rankdata, spearmanr
from synthetic_evaluations import write_evaluations

from replication import claim_statistics
from replication.claim_registry import (
    CLAIMS,
    STATISTICS,
    asks_for_truth,
    digest,
    experiments_to_judge,
    load_claims,
    station_of,
)
from replication.claims import BY_JUDGE, COLUMNS, by_imperfect_judge, decide, measure_all, read_results, verdicts
from replication.metrics import summarise

ROOT = Path(__file__).parents[1]
ALL = load_claims()
REFERENCES = [path.parent for path in sorted((ROOT / "results/reference").glob("*/claims.csv"))]
REPLICATES = 400
KINDS = ("corrected", "not_corrected")


def judge(claims, data, runs, only=()):
    """Frames of the claims with a verdict, and of the rest."""
    measured, rest = measure_all(claims, data, runs, only)
    return verdicts(claims, measured, runs), rest


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Invented results in which every claim holds."""
    folder = tmp_path_factory.mktemp("results")
    write_evaluations(folder)
    return folder


@pytest.fixture(scope="module")
def read(folder):
    return read_results(sorted(path.parent for path in folder.glob("*/seed=*/*/claims_registered.json")))


@pytest.fixture
def results(read):
    data, runs = read
    return {name: frame.copy() for name, frame in data.items()}, runs.copy()


@pytest.fixture(scope="module")
def claims_file(folder, read):
    """claims.csv of the invented results, and claims_by_judge.csv beside it, by the station's own functions."""
    measured = measure_all(ALL, *read)[0]
    verdicts(ALL, measured, read[1]).to_csv(folder / "claims.csv", index=False)
    by_imperfect_judge(ALL, *read, measured).to_csv(folder / "claims_by_judge.csv", index=False)
    return folder / "claims.csv"


@cache
def judging(folder, name):
    """The folders' names of the runs of which every result that a claim needs carries it."""
    runs = []
    for experiment in ALL[name]["needs"]:
        files = (folder / experiment).glob(f"seed=*/{station_of(ALL[name])}/claims_registered.json")
        carries = [file for file in files if json.loads(file.read_text()).get(name) == digest(name, ALL[name])]
        runs.append({file.parents[1].name for file in carries})
    return frozenset.intersection(*map(frozenset, runs))


@cache
def table(folder, runs, experiment, file, unit, number):
    frames = []
    for run in sorted(runs):
        of_run = folder / experiment / run
        model = pd.read_csv(of_run / "evaluation/metrics.csv", nrows=1)["model"].item()
        frames.append(pd.read_csv(of_run / file).assign(seed=run, model=model))
    table = pd.concat(frames)
    if unit == "pair":
        table["pair"] = table["probe_id"] // 2
    table = table.assign(unit=table[unit], number=table[number])
    return table.set_index(["model", "seed", "subtask", "unit", "number"], drop=False).sort_index()


class Recount:
    """The claims once more: series with one row per run, prompt (or pair of scenes) and image, straight from the files."""

    def __init__(self, folder, name):
        self.folder, self.claim, self.runs = folder, ALL[name], judging(folder, name)
        self.sign = 1 if self.claim["direction"] == "greater" else -1

    def own(self, experiment, first=True):
        images = table(self.folder, self.runs, experiment, "evaluation/images.csv", "prompt_id", "image")
        return images[images["image"] == 0] if first else images

    def old(self, experiment):
        return table(self.folder, self.runs, experiment, "evaluation/pretrained_verdicts.csv", "prompt_id", "image")

    def right_scenes(self, experiment):
        probes = table(self.folder, self.runs, experiment, "evaluation/probe_verdicts.csv", "pair", "probe_id")
        return (probes["verdict"] == probes["label"]) * 1.0

    def unlocked(self, experiment):
        pool = table(self.folder, self.runs, experiment, "discard_pool.csv", "prompt_id", "prompt_id")
        return (pool["unlocked"] > 0) * 1.0

    def kernel(self, experiment):
        """Examples with the rank correlation of the proxy and the kernel over their samples, by scipy, one by one. A prompt may
        have several examples in a run."""
        frames = []
        for run in sorted(self.runs):
            folder = self.folder / experiment / run / "kernel"
            examples, pairs = (pd.read_csv(folder / f"{file}.csv") for file in ("examples", "pairs"))
            rho = []
            for _, rows in pairs.groupby("example"):
                proxy = rankdata(rows["text_similarity"]) + rankdata(rows["image_similarity"])
                rho.append(spearmanr(proxy, rows["generation-generation"]).statistic)
            frames.append(examples.assign(seed=run, unit=examples["prompt_id"], number=examples.index, rho=rho))
        return pd.concat(frames).set_index(["model", "seed", "subtask", "unit", "number"], drop=False).sort_index()

    def metric(self, name, experiment):
        if name == "balanced_accuracy":
            return self.right_scenes(experiment)
        images = self.own(experiment)
        return (images["truth"] if name == "generation" else 1 - images["verdict"]) * 1.0

    # Three ways to read a claim: its value, its value in resamples, its p-value.

    def value(self, top, bottom=None):
        return 100 * (top.mean() if bottom is None else top.sum() / bottom.sum())

    def replicates(self, top, bottom=None):
        bottom = np.ones(len(top)) if bottom is None else bottom.to_numpy(float)
        rows = top.index.to_frame(index=False)
        seeds, units = (pd.Index(rows[name].unique()) for name in ("seed", "unit"))
        seed_of_row, unit_of_row = seeds.get_indexer(rows["seed"]), units.get_indexer(rows["unit"])
        runs = [seeds.get_indexer(group.unique()) for _, group in rows.groupby("model")["seed"]]
        subtasks = [units.get_indexer(group.unique()) for _, group in rows.groupby("subtask")["unit"]]
        rng, values = np.random.default_rng(11), []
        for _ in range(REPLICATES):
            drawn = np.concatenate(
                [rng.choice(runs[base], len(runs[base])) for base in rng.integers(len(runs), size=len(runs))]
            )
            drawn_units = np.concatenate([rng.choice(members, len(members)) for members in subtasks])
            counts = np.bincount(drawn, minlength=len(seeds)), np.bincount(drawn_units, minlength=len(units))
            weights = counts[0][seed_of_row] * counts[1][unit_of_row]
            below = weights @ bottom
            values.append(100 * (weights @ top.to_numpy(float)) / below if below else np.nan)
        return np.array(values)

    def p_value(self, top, bottom=None):
        excess = 100 * top - self.claim["no_effect"] * (1 if bottom is None else bottom)
        excess = self.sign * excess.groupby(level="unit").sum().to_numpy()
        signs = np.random.default_rng(12).choice([-1, 1], size=(9999, len(excess)))
        return (1 + (signs @ excess >= excess.sum() - 1e-9).sum()) / 10_000

    def say(self, name, m, every, some):
        """The claim `name`, with m for the value of a ratio, `every` and `some` for what puts several together."""
        of = self.claim["of"]
        if name == "non_unified_in_every_stratum":
            return every([m(1.0 - t["verdict"]) for _, t in self.own("baseline", first=False).groupby("stratum")])
        if name == "gap_is_weak_generation":
            strata = [t for _, t in self.own("baseline", first=False).groupby("stratum")]
            return every([m((1.0 - t["truth"]) * (1 - t["verdict"]), 1 - t["verdict"]) for t in strata])
        if name.endswith("understanding_win_rate"):
            old = self.old(of["experiment"])
            changed = old["before"] ^ old["after"]
            return m((old["after"] == old["truth"]) * 1.0 * changed, changed)
        if name.endswith("corrects_false_positives"):
            old = self.old(of["experiment"])
            triple = old["truth"].astype(str) + old["before"].astype(str) + old["after"].astype(str)
            others, changed = ("001", "101", "110"), (old["before"] ^ old["after"])
            return every([m(1.0 * (triple == "010") - (triple == other), changed) for other in others])
        if name == "nonunified_cannot_tell":
            gaps = {n: self.metric(n, "baseline") for n in ("nonunified", "generation", "balanced_accuracy")}
            return some(
                [
                    every(
                        [
                            m(self.metric("nonunified", arm) - gaps["nonunified"]),
                            some([m(self.metric(n, arm) - gaps[n]) for n in ("generation", "balanced_accuracy")]),
                        ]
                    )
                    for arm in of["arms"]
                ]
            )
        if name == "orthogonal_steps_change_fewer_verdicts":
            plain, projected = (self.old(arm) for arm in (of["before"], of["after"]))
            changed, still = (1.0 * (old["before"] != old["after"]) for old in (plain, projected))
            return m(changed - still, changed)
        if name == "branches_share_gradients":
            return every([m(self.kernel("sft")[f"own_{quantity}"]) for quantity in of["quantities"]])
        if name == "proxy_ranks_like_kernel":
            return m(self.kernel("sft")["rho"])
        if name == "generation_and_understanding_move_alike":
            examples = self.kernel("sft")
            return m(1.0 * (examples["delta_generation"] * examples["delta_caption"] > 0))
        if name == "curriculum_unlocks_more_than_either_branch":
            return every([m(self.unlocked("c_sft") - self.unlocked(alone)) for alone in of["alone"]])
        return every([m(self.metric(n, of["after"]) - self.metric(n, of["before"])) for n in of["metrics"]])

    def recount(self, name):
        """(estimate, its value in resamples, p-value)"""
        if "grows_with_gap" in name:
            return self.recount_correlation(self.claim["of"]["gap_from"] == "the other images")
        if name == "corrected_false_positives_fall_more":
            return self.recount_lead()
        least, most = (np.min, np.max) if self.sign == 1 else (np.max, np.min)
        least, most = (lambda values, f=f: f(np.array(values), axis=0) for f in (least, most))
        estimate = self.say(name, self.value, least, most)
        replicates = self.say(name, self.replicates, least, most)
        p_value = self.say(name, self.p_value, max, lambda values: min(1, len(values) * min(values)))
        return estimate, replicates, p_value

    def recount_lead(self):
        """By Mann and Whitney's U in each run; the p-value by shuffled groups."""
        runs = {}
        for run in sorted(self.runs):
            examples = pd.read_csv(self.folder / "sft" / run / "kernel/examples.csv")
            falls = [-examples.loc[examples["group"] == group, "delta_generation"] for group in KINDS]
            runs.setdefault(examples["model"][0], []).append([fall.to_numpy() for fall in falls])

        def value(drawn):
            won, pairs = 0.0, 0
            for ours, others in drawn:
                if len(ours) and len(others):
                    won += 2 * mannwhitneyu(ours, others).statistic - len(ours) * len(others)
                    pairs += len(ours) * len(others)
            return won / pairs if pairs else np.nan

        every_run = [run for members in runs.values() for run in members]
        estimate, rng, replicates, at_least = value(every_run), np.random.default_rng(14), [], 0
        for _ in range(REPLICATES):
            # a run that is drawn twice brings the same resample of its examples twice
            resampled = [
                [[rng.choice(side, len(side)) for side in run] for run in members] for members in runs.values()
            ]
            models = [resampled[i] for i in rng.integers(len(runs), size=len(runs))]
            drawn = [members[i] for members in models for i in rng.integers(len(members), size=len(members))]
            replicates.append(value(drawn))
            mixed = [rng.permutation(np.concatenate(run)) for run in every_run]
            shuffled = [(mix[: len(run[0])], mix[len(run[0]) :]) for mix, run in zip(mixed, every_run, strict=True)]
            at_least += value(shuffled) >= estimate - 1e-12
        return estimate, replicates, (1 + at_least) / (1 + REPLICATES)

    def recount_correlation(self, others):
        images = self.own("baseline", first=False)
        gap = 1 - images[(images["image"] > 0) == others]["verdict"].groupby(level=["model", "subtask"]).mean()
        gain = (self.own("sft")["truth"] - self.own("baseline")["truth"]).groupby(level=["model", "subtask"]).mean()
        estimate, gap, gain = gap.corr(gain, method="spearman"), gap.unstack(), gain.unstack()
        rng, replicates, at_least = np.random.default_rng(13), [], 0
        for _ in range(1000):
            rows, columns = (rng.integers(n, size=n) for n in gap.shape)
            again = (frame.to_numpy()[rows][:, columns].ravel() for frame in (gap, gain))
            replicates.append(np.corrcoef(*(rankdata(values) for values in again))[0, 1])
            shuffled = gap.to_numpy()[:, rng.permutation(gap.shape[1])].ravel()
            at_least += np.corrcoef(rankdata(shuffled), rankdata(gain.to_numpy().ravel()))[0, 1] >= estimate - 1e-12
        return estimate, replicates, (1 + at_least) / 1001


def holds_95_percent(row, replicates, error=0.03):
    """Whether the ends of an interval are the 2.5 and 97.5 % quantiles of `replicates`, as far as so few tell: small counts take
    few values, between which a quantile jumps."""
    replicates = np.array(replicates)[np.isfinite(replicates)]
    ends = [(row["ci_low"], 0.025), (row["ci_high"], 0.975)]
    near = 1e-4 * np.ptp(replicates) + 1e-4  # claims.csv has six digits
    return all(
        (replicates < end - near).mean() - error <= level <= (replicates <= end + near).mean() + error
        for end, level in ends
    )


@pytest.mark.parametrize("reference", [None, *REFERENCES], ids=lambda path: path.name if path else "invented")
def test_every_verdict_is_recomputed_from_the_files(claims_file, reference):
    """Estimate and interval agree with claims.csv, and the rule, applied here to p-values of our own, gives its verdict."""
    folder = reference or claims_file.parent
    table = pd.read_csv(folder / "claims.csv").set_index("claim")
    recounted = {name: Recount(folder, name).recount(name) for name in table.index}
    family = [one[2] for one in recounted.values()]
    family += [1.0] * (int(re.search(r"over (\d+) claims$", table["test"].iloc[0])[1]) - len(family))
    for name, (estimate, replicates, p_value) in recounted.items():
        row, claim = table.loc[name], ALL[name]
        assert row["estimate"] == pytest.approx(estimate, abs=1e-4, rel=1e-5), name
        assert holds_95_percent(row, replicates), name
        # Holm: every p-value up to this one, times the number of those not below it.
        corrected = min(1, max(p * sum(other >= p for other in family) for p in family if p <= p_value))
        sign = 1 if claim["direction"] == "greater" else -1
        near, far = sorted(sign * row[["ci_low", "ci_high"]])
        if far < sign * claim["minimum"]:
            verdict = "not reproduced"
        elif corrected < 0.05 and sign * estimate >= sign * claim["minimum"] and near > sign * claim["no_effect"]:
            verdict = "reproduced"
        else:
            verdict = "inconclusive"
        assert row["verdict"] == verdict, name


@pytest.mark.parametrize("reference", [None, *REFERENCES], ids=lambda path: path.name if path else "invented")
def test_the_second_opinion_is_recomputed_from_files_in_which_the_judges_answers_are_the_truth(
    claims_file, reference, tmp_path
):
    folder = reference or claims_file.parent
    for file in (path for name in ("images", "pretrained_verdicts") for path in folder.glob(f"*/seed=*/*/{name}.csv")):
        if not file.with_name("metrics.csv").exists():
            continue  # an experiment that no claim needs: a reference has its images for the figures alone
        frame = pd.read_csv(file)
        copy = tmp_path / file.relative_to(folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        frame.assign(truth=frame["judge_verdict"]).to_csv(copy, index=False)
        for beside in ("metrics.csv", "probe_verdicts.csv", "claims_registered.json"):
            shutil.copyfile(file.with_name(beside), copy.with_name(beside))
    by_judge = pd.read_csv(folder / "claims_by_judge.csv").set_index("claim")
    claims = pd.read_csv(folder / "claims.csv").set_index("claim")
    assert list(by_judge.index) == [name for name in claims.index if asks_for_truth(ALL[name])] and len(by_judge)
    assert (by_judge["verdict"] == claims["verdict"].loc[by_judge.index]).all()
    for name, row in by_judge.iterrows():
        estimate, replicates, p_value = Recount(tmp_path, name).recount(name)
        assert row["estimate"] == pytest.approx(estimate, abs=1e-4, rel=1e-5), name
        assert holds_95_percent(row, replicates), name
        assert p_value < 0.05 or row["by_judge"] != "reproduced", name


def test_there_is_no_second_opinion_where_any_image_was_not_judged(results):
    data, runs = results
    claims = {"sft_improves_generation": ALL["sft_improves_generation"]}
    measured = measure_all(claims, data, runs)[0]
    both = by_imperfect_judge(claims, data, runs, measured)
    first = data["images"][data["images"]["image"] == 0].groupby("experiment")["judge_verdict"].mean()
    assert list(both) == BY_JUDGE and both["estimate"].item() == pytest.approx(100 * (first["sft"] - first["baseline"]))
    data["pretrained"].loc[5, "judge_verdict"] = np.nan
    assert by_imperfect_judge(claims, data, runs, measured).empty
    data["pretrained"] = data["pretrained"].drop(columns="judge_verdict")
    assert by_imperfect_judge(claims, data, runs, measured).empty


def test_every_claim_holds_in_invented_results_made_for_it(claims_file):
    table = pd.read_csv(claims_file).set_index("claim")
    assert list(table.index) == list(ALL)
    assert (table["verdict"] == "reproduced").all(), table["verdict"]
    assert (table["seeds"] == 5).all()


def against(claim, data):
    """The results altered against a claim, in place."""
    of, images = claim["of"], data["images"]
    match claim["statistic"]:
        case "nonunified_by_stratum":
            images.loc[images["stratum"] == "hard", "verdict"] = 1
        case "weak_generation_by_stratum":
            images.loc[(images["stratum"] == "easy") & (images["verdict"] == 0), "truth"] = 1
        case "win_rate" | "false_positive_lead":
            old = data["pretrained"]
            old[["before", "after"]] = old[["after", "before"]].to_numpy()
        case "gap_correlation":
            images["verdict"] = 1 - images["verdict"]
        case "own_cosines":
            data["examples"]["own_verdict"] *= -1
        case "proxy_ranks":
            data["pairs"]["generation-generation"] *= -1
        case "same_signs":
            data["examples"]["delta_caption"] *= -1
        case "corrected_lead":
            data["examples"]["group"] = data["examples"]["group"].replace(dict(zip(KINDS, KINDS[::-1], strict=True)))
        case "hidden_harm":
            images.loc[images["experiment"].isin(of["arms"]), "verdict"] = 0
        case "change" | "unlocked_lead" | "fewer_changed_verdicts":
            one, other = (of["before"], of["after"]) if "before" in of else (of["experiment"], of["alone"][0])
            for frame in data.values():
                frame["experiment"] = frame["experiment"].replace({one: other, other: one})


@pytest.mark.parametrize("name", ALL)
def test_data_altered_against_a_claim_change_its_verdict(results, name):
    data, runs = results
    against(ALL[name], data)
    assert judge({name: ALL[name]}, data, runs)[0]["verdict"].item() != "reproduced"


def test_changes_are_those_of_the_metrics(results):
    """Over subtasks of equal size, the mean over prompts is the mean over subtasks that metrics.csv calls overall."""
    data, _ = results
    overall = {}
    for experiment in ("baseline", "sft"):
        for seed in range(5):
            run = {
                name: frame[(frame["experiment"] == experiment) & (frame["seed"] == seed)]
                for name, frame in data.items()
            }
            rows = summarise(
                run["images"].drop(columns="judge_verdict"),
                run["probes"],
                None,
                {"preset": "", "experiment": "", "model": "", "method": "", "seed": 0},
            )
            overall[experiment, seed] = rows[rows["subtask"] == "overall"].set_index("metric")["value"]
    for name, metric in [
        ("sft_improves_generation", "generation"),
        ("sft_improves_balanced_accuracy", "balanced_accuracy"),
        ("sft_improves_unification", "nonunified"),
    ]:
        expected = np.mean([overall["sft", seed][metric] - overall["baseline", seed][metric] for seed in range(5)])
        assert claim_statistics.measure(ALL[name], data)[0] == pytest.approx(100 * expected)


def test_one_arm_of_hidden_harm_is_enough_and_costs_a_bonferroni(results):
    """Hand-made parts: values 10, -5 and 2 with p-values 0.5, 0.01 and 0.2."""
    frames = [pd.DataFrame({"top": [number]}) for number in range(3)]
    parts = ("any", [("all", [frames[0], frames[1]]), frames[2]])
    assert claim_statistics.fold(parts, lambda one: [10, -5, 2][one["top"].item()], min, max) == 2
    p_values = [0.5, 0.01, 0.2]
    assert (
        claim_statistics.fold(parts, lambda one: p_values[one["top"].item()], max, claim_statistics.bonferroni) == 0.4
    )


def test_results_that_do_not_match_are_refused(results):
    data, runs = results
    images = data["images"]
    data["images"] = images.drop(images[(images["experiment"] == "sft") & (images["prompt_id"] == 3)].index)
    with pytest.raises(SystemExit, match="different runs, prompts or scenes"):
        judge({"sft_improves_generation": ALL["sft_improves_generation"]}, data, runs)


def test_nothing_to_count_is_inconclusive(results):
    data, runs = results
    data["pretrained"]["after"] = data["pretrained"]["before"]
    for name in ("sft_improves_understanding_win_rate", "dpo_corrects_false_positives"):
        row = judge({name: ALL[name]}, data, runs)[0].iloc[0]
        assert row["verdict"] == "inconclusive" and row[["estimate", "ci_low", "ci_high"]].isna().all()


# The paper's scale


def reason_of(name):
    """What preset `paper` says of a claim; None where it judges it."""
    claim, ran = ALL[name], {"baseline", "sft", "dpo", "c_sft", "c_dpo"}
    missing = [experiment for experiment in claim["needs"] if experiment not in ran]
    if station_of(claim) == "kernel":
        return "not run: needs sft (its kernel, by the target dynamics)"
    if missing:
        return f"not run: needs {', '.join(missing)}"
    if name in ("non_unified_in_every_stratum", "gap_is_weak_generation"):
        return "needs every stratum: no prompts of the hard one were evaluated"
    if name.endswith("balanced_accuracy"):
        return "needs held-out labelled scenes: none were judged"
    return None


@pytest.fixture
def benchmarks(results):
    """The results as they are at the paper's scale: one model, no hard stratum, no scenes, scores, and five experiments."""
    data, runs = results
    ran = ["baseline", "sft", "dpo", "c_sft", "c_dpo"]
    data = {name: data[name][data[name]["experiment"].isin(ran)].assign(model="m") for name in ("images", "pretrained")}
    data = {name: frame[frame["stratum"] != "hard"] for name, frame in data.items()}
    data["images"] = data["images"].assign(score=0.2 + 0.5 * data["images"]["truth"])
    data["probes"] = results[0]["probes"][:0]
    return data, runs[runs["experiment"].isin(ran) & (runs["station"] == "evaluation")]


def test_what_the_papers_scale_cannot_judge_has_a_plain_reason(benchmarks):
    judged, rest = judge(ALL, *benchmarks)
    expected = {name: reason_of(name) for name in ALL}
    assert rest.set_index("claim")["reason"].to_dict() == {name: why for name, why in expected.items() if why}
    assert list(judged["claim"]) == [name for name, why in expected.items() if why is None] and len(judged) == 12
    assert judged["estimate"].notna().all() and judged["test"].str.endswith(f"over {len(ALL)} claims").all()


def test_generation_at_the_papers_scale_is_the_benchmarks_score(benchmarks):
    data, _ = benchmarks
    first = data["images"][data["images"]["image"] == 0].groupby("experiment")[["truth", "score"]].mean()
    estimate = claim_statistics.measure(ALL["sft_improves_generation"], data)[0]
    assert estimate == pytest.approx(100 * (first["score"]["sft"] - first["score"]["baseline"]))
    assert estimate == pytest.approx(50 * (first["truth"]["sft"] - first["truth"]["baseline"]))


def test_one_image_of_each_prompt_leaves_no_others(benchmarks):
    data, runs = benchmarks
    data["images"] = data["images"][data["images"]["image"] == 0]
    rest = judge(ALL, data, runs)[1].set_index("claim")["reason"]
    assert rest["gain_grows_with_gap_on_other_images"] == (
        "needs several images of a prompt: the pre-trained model drew one"
    )
    assert "gain_grows_with_gap" not in rest.index


def test_the_embedded_world_lacks_nothing(results):
    assert all(claim_statistics.what_is_missing(claim, results[0]) is None for claim in ALL.values())


# The decision rule


@pytest.mark.parametrize(
    ("estimate", "low", "high", "corrected", "verdict"),
    [
        (1.0, 0.01, 5.0, 0.049, "reproduced"),
        (1.0, 0.01, 5.0, 0.05, "inconclusive"),  # not below the level
        (1.0, 0.0, 5.0, 0.001, "inconclusive"),  # the interval holds no effect
        (0.99, 0.01, 5.0, 0.001, "inconclusive"),  # too small to matter
        (0.5, 0.01, 1.0, 0.001, "inconclusive"),  # the minimum is not ruled out
        (0.5, 0.01, 0.99, 0.001, "not reproduced"),  # it is, however sure the effect
        (-3.0, -4.0, -2.0, 1.0, "not reproduced"),
        (np.nan, np.nan, np.nan, 1.0, "inconclusive"),
    ],
)
@pytest.mark.parametrize("sign", [1, -1])
def test_the_decision_rule_at_its_boundaries(estimate, low, high, corrected, verdict, sign):
    claim = {
        "direction": "greater" if sign == 1 else "less",
        "minimum": sign * 1.0,
        "no_effect": 0.0,
        "significance": 0.05,
    }
    low, high = (low, high) if sign == 1 else (-high, -low)
    assert decide(claim, sign * estimate, low, high, corrected) == verdict


# Registration


def changed(name, **fields):
    return {**ALL, name: {**ALL[name], **fields}}


@pytest.fixture
def fast(monkeypatch):
    """Claims are told apart here, not measured."""
    monkeypatch.setattr("replication.claims.measure", lambda claim, data: (2.0, 1.0, 3.0, 0.001))


def test_a_claim_changed_after_the_results_gets_no_verdict(results, fast):
    name = "sft_improves_generation"
    for fields in ({"minimum": 0.9}, {"statement": ALL[name]["statement"] + " "}, {"significance": 0.06}):
        judged, rest = judge(changed(name, **fields), *results)
        assert name not in set(judged["claim"])
        assert rest.set_index("claim")["reason"].to_dict() == {name: "registered after these results"}
        assert judged["test"].str.endswith(f"over {len(ALL)} claims").all(), "it makes none of the others easier"


def test_a_claim_added_after_the_results_gets_no_verdict(results, fast):
    judged, rest = judge({**ALL, "new": {**ALL["sft_improves_generation"]}}, *results)
    assert len(judged) == len(ALL) and "new" not in set(judged["claim"])
    assert judged["test"].str.endswith(f"over {len(ALL) + 1} claims").all()
    assert rest[["claim", "reason"]].to_numpy().tolist() == [["new", "registered after these results"]]


def test_a_run_of_which_one_result_lacks_the_claim_does_not_judge_it(results):
    data, runs = results
    claims = {name: ALL[name] for name in ("sft_improves_generation", "dpo_improves_generation")}
    everything = judge(claims, data, runs)[0].set_index("claim")
    late = (runs["experiment"] == "dpo") & (runs["seed"] == 3)
    runs.loc[late, "registered"] = [{}]
    judged = judge(claims, data, runs)[0].set_index("claim")
    assert judged["seeds"].to_dict() == {"sft_improves_generation": 5, "dpo_improves_generation": 4}
    without = judge(claims, {name: frame[frame["seed"] != 3] for name, frame in data.items()}, runs[runs["seed"] != 3])
    columns = ["estimate", "ci_low", "ci_high"]
    rows = [frame[columns].astype(float) for frame in (judged, without[0].set_index("claim"), everything)]
    pd.testing.assert_series_equal(rows[0].loc["dpo_improves_generation"], rows[1].loc["dpo_improves_generation"])
    pd.testing.assert_series_equal(rows[0].loc["sft_improves_generation"], rows[2].loc["sft_improves_generation"])


def test_where_every_run_lacks_the_claim_in_some_result_it_is_listed(results, fast):
    data, runs = results
    for seed in range(5):
        runs.loc[(runs["experiment"] == ("dpo" if seed % 2 else "baseline")) & (runs["seed"] == seed), "registered"] = [
            {}
        ]
    rest = judge(ALL, data, runs)[1].set_index("claim")["reason"]
    assert {"dpo_improves_generation", "dpo_improves_unification"} <= set(rest.index)
    assert set(rest) == {"registered after these results"} and "dpo_corrects_false_positives" not in rest.index


def test_a_kernel_is_judged_by_the_claims_that_it_carries_itself(results, fast):
    data, runs = results
    of_kernel = {name for name, claim in ALL.items() if station_of(claim) == "kernel"}
    assert len(of_kernel) == 4
    for station, late in (("kernel", of_kernel), ("evaluation", set(ALL) - of_kernel)):
        older = runs.assign(
            registered=[{} if one == station else r for one, r in zip(runs["station"], runs["registered"], strict=True)]
        )
        rest = judge(ALL, data, older)[1].set_index("claim")["reason"]
        assert set(rest.index) == late and set(rest) == {"registered after these results"}
    fewer = runs[(runs["station"] == "evaluation") | (runs["seed"] < 3)]
    judged = judge(ALL, data, fewer)[0].set_index("claim")["seeds"]
    assert {name for name, seeds in judged.items() if seeds == 3} == of_kernel  # and 5 runs of all evaluations


def test_asking_for_some_claims_makes_none_easier(results, fast):
    few = ["sft_improves_generation", "branches_share_gradients"]
    judged, rest = judge(ALL, *results, only=few)
    assert list(judged["claim"]) == few and rest.empty
    p_value = min(1.0, 0.001 * len(ALL))  # all others count as not run
    assert judged["test"].str.endswith(f"{p_value:.2g} after Holm over {len(ALL)} claims").all()


def test_a_claim_taken_away_after_the_results_is_listed(results, fast):
    kept = {name: claim for name, claim in ALL.items() if name != "curriculum_beats_sft"}
    judged, rest = judge(kept, *results)
    assert rest[["claim", "reason"]].to_numpy().tolist() == [["curriculum_beats_sft", "withdrawn after these results"]]
    assert judged["test"].str.endswith(f"over {len(ALL)} claims").all(), "giving it up makes none of the others easier"


def test_a_claim_that_was_not_run_is_listed_and_counts_in_the_correction(results, fast):
    data, runs = results
    runs = runs[runs["experiment"] != "c_dpo"]
    judged, rest = judge(ALL, data, runs)
    assert rest[["claim", "reason"]].to_numpy().tolist() == [["curriculum_beats_dpo", "not run: needs c_dpo"]]
    assert judged["test"].str.contains(rf"p = 0.001, {len(ALL) / 1000:g} after Holm over {len(ALL)} claims").all()
    runs = runs[(runs["experiment"] != "dpo") | (runs["seed"] != 4)]
    reasons = judge(ALL, data, runs)[1].set_index("claim")["reason"]
    assert reasons["dpo_improves_generation"] == "not run: its experiments have different runs"


def test_results_of_full_are_committed():
    assert "full" in [reference.name for reference in REFERENCES]


@pytest.mark.parametrize("reference", REFERENCES, ids=lambda path: path.name)
def test_committed_verdicts_were_registered_before_their_results(reference):
    claims = pd.read_csv(reference / "claims.csv").set_index("claim")
    for name in claims.index:
        assert len(judging(reference, name)) == claims.loc[name, "seeds"], (
            f"{name} is younger than results that judge it"
        )


def test_a_digest_is_of_the_content_and_the_name():
    claim = ALL["sft_improves_generation"]
    assert digest("a", claim) == digest("a", dict(reversed(claim.items()))) != digest("b", claim)
    assert len({digest(name, claim) for name, claim in ALL.items()}) == len(ALL)


# configs/claims.yaml


def test_the_registry_knows_every_statistic_and_its_arguments():
    functions = {one: getattr(claim_statistics, one) for one in ("gap_correlation", "corrected_lead")}
    functions |= claim_statistics.RATIOS
    assert set(functions) == set(STATISTICS)
    for name, function in functions.items():
        assert {"data", *STATISTICS[name][0]} == set(signature(function).parameters)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("statistic: win_rate", "statistic: winrate", "has the unknown statistic 'winrate'; choose one of: change, "),
        (
            "    direction: less\n",
            "    directoin: less\n",
            "has missing fields (direction) or unknown ones (directoin)",
        ),
        ("direction: less", "direction: down", "has the direction 'down'; choose greater or less"),
        ("test: permutation", "test: sign_flip", "has the test 'sign_flip', but 'gap_correlation' is tested by"),
        ("minimum: -1.0", "minimum: 1.0", "has a minimum on the wrong side of no_effect for its direction"),
        (
            "metrics: [generation]",
            "metrics: [genaration]",
            "has an unknown value of metrics; choose from: balanced_accuracy, ",
        ),
        ("minimum: 60.0", "minimum: many", "has 'many' as its minimum, which is not a number"),
        ("needs: [baseline, dpo]", "needs: [dpo]", "must need exactly the experiments of its statistic: baseline, dpo"),
        ("of: {experiment: sft}", "of: {experiments: sft}", "must give its statistic 'win_rate' exactly: experiment"),
        ("reason: As for SFT.", "reason: ''", "needs a text as its reason"),
        ("significance: 0.05", "significance: 5", "significance is 5; write a number such as 0.05"),
        ("\nclaims:\n", "\nclaim:\n", "must hold exactly `significance` and `claims`"),
        ("    test: sign_flip\n", "    test: sign_flip\n    test: sign_flip\n", "is not YAML: "),
    ],
)
def test_a_wrong_claim_is_one_sentence(tmp_path, old, new, sentence):
    text = CLAIMS.read_text()
    assert old in text
    (tmp_path / "claims.yaml").write_text(text.replace(old, new, 1))
    with pytest.raises(SystemExit) as stopped:
        load_claims(tmp_path / "claims.yaml")
    assert sentence in str(stopped.value) and "\n" not in str(stopped.value)
    assert str(stopped.value).startswith("claims.yaml")


def test_comments_do_not_change_a_digest(tmp_path):
    (tmp_path / "claims.yaml").write_text(yaml.safe_dump(yaml.safe_load(CLAIMS.read_text())))
    assert load_claims(tmp_path / "claims.yaml") == ALL


def test_experiments_are_those_of_claims_that_can_be_judged():
    assert experiments_to_judge(ALL, ["baseline", "sft", "sft_accept_all"]) == ["baseline", "sft"]
    assert "c_dpo" not in experiments_to_judge(ALL, ["baseline", "c_dpo"])


# The station and its table


def test_the_command_lines_write_their_files_without_torch(folder, tmp_path):
    inputs = [
        str(path) for name in ("baseline", "sft") for path in folder.glob(f"{name}/seed=*/evaluation/*registered.json")
    ]
    out = tmp_path / "claims.csv"
    station = ["--claims", str(CLAIMS), "--inputs", *inputs, "--output", str(out)]
    table = [
        "--inputs",
        str(out),
        str(tmp_path / "claims_by_judge.csv"),
        str(tmp_path / "claims_not_judged.csv"),
        "--output",
        str(tmp_path / "figures/claims"),
    ]
    code = (
        "import runpy, sys\n"
        f"for name, arguments in [('claims', {station!r}), ('tables.claims', {table!r})]:\n"
        "    sys.argv = [name, *arguments]\n"
        "    runpy.run_module('replication.' + name, run_name='__main__')\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert out.read_text().splitlines()[0] == ",".join(COLUMNS)
    assert (
        ",".join(COLUMNS) == "claim,statement,estimate,ci_low,ci_high,seeds,test,criterion,verdict,paper_value,source"
    )
    claims = pd.read_csv(out)
    ran = {name for name, claim in ALL.items() if set(claim["needs"]) <= {"baseline", "sft"}}
    assert set(claims["claim"]) == {name for name in ran if station_of(ALL[name]) == "evaluation"}
    text, tex = ((tmp_path / f"figures/claims.{suffix}").read_text() for suffix in ("md", "tex"))
    judged, second, rest = text.split("\n\n")
    by_judge = pd.read_csv(tmp_path / "claims_by_judge.csv")
    assert list(by_judge) == BY_JUDGE and "by the imperfect judge" in second
    assert all(statement in second for statement in by_judge["statement"]) and len(by_judge) > 3
    for name, claim in ALL.items():
        assert claim["statement"].replace("|", r"\|") in (judged if name in set(claims["claim"]) else rest)
    assert "not run: needs sft (its kernel, by the target dynamics)" in rest
    assert "not run: needs dpo" in rest and "reproduced" not in rest
    assert tex.count("\\toprule") == tex.count("\\bottomrule") == 3 and "95 \\% interval" in tex
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "figures/claims.csv"), claims)


def test_the_same_evaluation_twice_is_refused(folder):
    with pytest.raises(SystemExit, match="given twice"):
        read_results([folder / "sft/seed=0/evaluation"] * 2)
