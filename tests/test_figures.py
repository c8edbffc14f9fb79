"""Figures and tables: what is drawn is what was measured, and the same input gives the same bytes."""

import importlib
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest, mannwhitneyu, spearmanr
from synthetic_runs import (
    all_runs,
    benchmark_runs,
    curriculum_runs,
    evaluation_images,
    poor_supervision_runs,
    write_judged_runs,
)

from replication.figures import (
    co_degradation,
    curriculum,
    fig2_nonunified,
    fig3_weak_generation,
    fig4_gains,
    fig5_win_rate,
    judges,
    samples,
)
from replication.metrics import rogan_gladen
from replication.results import BENCHMARKS, overalls_of, paper_cell, read_metrics, rows_of, strata_of
from replication.scenes import STRATA, SUBTASKS
from replication.style import save
from replication.tables import tab1_main, tab_base_model, tab_curriculum, tab_judges
from replication.tables.writing import save_table

FIGURES = ["fig2_nonunified", "fig3_weak_generation", "fig4_gains", "fig5_win_rate"]


@pytest.fixture(scope="module")
def metrics():
    return all_runs()


@pytest.fixture(scope="module")
def benchmarks():
    """Metrics at the paper's scale."""
    return benchmark_runs(seeds=2)


@pytest.fixture(scope="module")
def arms():
    return poor_supervision_runs(("sft_shuffled", "sft_oracle", "dpo_swapped"), seeds=4)


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """Files of runs that an imperfect judge has judged, too."""
    return write_judged_runs(tmp_path_factory.mktemp("judged"))


def draw(name, metrics):
    if name == "samples":
        return samples.draw([evaluation_images(seed) for seed in range(3)])
    if name == "curriculum":
        return curriculum.draw(*curriculum_runs(["c_sft", "c_sft_random", "c_dpo"], metrics))
    return importlib.import_module(f"replication.figures.{name}").draw(metrics)


@pytest.mark.parametrize("name", [*FIGURES, "samples", "curriculum"])
def test_two_draws_are_identical_bytes(name, metrics, tmp_path):
    for copy in ("first", "second"):
        save(*draw(name, metrics), tmp_path / copy)
    for suffix in (".pdf", ".png", ".csv"):
        first, second = ((tmp_path / f"{copy}{suffix}").read_bytes() for copy in ("first", "second"))
        assert first == second and len(first) > 500
    assert b"/Type3" not in (tmp_path / "first.pdf").read_bytes()


@pytest.mark.parametrize("name", FIGURES)
def test_figures_draw_from_a_single_run(name, metrics, tmp_path):
    """The smoke preset has one seed, one base and few images, so that some shares are undefined."""
    single = metrics[metrics["seed"] == 0].copy()
    empty = single["metric"].isin(["weak_generation_n", "understanding_win_rate"]) & (single["subtask"] == "shape")
    single.loc[empty, "value"] = np.where(single.loc[empty, "metric"] == "understanding_win_rate", 0.5, np.nan)
    single.loc[empty, "n"] = 0
    save(*draw(name, single), tmp_path / name)
    assert (tmp_path / f"{name}.pdf").stat().st_size > 5000


def test_co_degradation_is_drawn_twice_alike_and_from_two_runs(arms, tmp_path):
    for copy in ("first", "second"):
        save(*co_degradation.draw(arms), tmp_path / copy)
    for suffix in (".pdf", ".png", ".csv"):
        assert (tmp_path / f"first{suffix}").read_bytes() == (tmp_path / f"second{suffix}").read_bytes()
    few = arms[(arms["seed"] < 2) & arms["method"].isin(["pretrained", "sft", "dpo", "sft_shuffled"])]
    save(*co_degradation.draw(few[few["metric"] != "kappa"]), tmp_path / "smoke")  # a preset may have one base only
    assert (tmp_path / "smoke.pdf").stat().st_size > 5000


def value(metrics, method, metric, subtask):
    rows = metrics[(metrics["method"] == method) & (metrics["metric"] == metric) & (metrics["subtask"] == subtask)]
    return rows.set_index("seed")


def test_fig2_shows_measured_and_published_scores(metrics):
    _, data = fig2_nonunified.draw(metrics)
    shown = data.set_index(["panel", "model", "subtask"])["percent"]
    rows = value(metrics, "pretrained", "nonunified", "texture")
    rows = rows[rows["model"] == "embedded_janus-1"]
    assert len(rows) == 2
    assert shown["a", "embedded_janus-1", "texture"] == pytest.approx(
        100 * np.average(rows["value"], weights=rows["n"])
    )
    assert shown["b", "vila_u", "physics"] == 58.47
    strata = data[(data["panel"] == "c") & (data["metric"] == "nonunified_n") & (data["stratum"] == "hard")]
    assert len(strata) == 6  # a mean and five runs
    mean = strata[strata["seed"].isna()].iloc[0]
    assert mean["low"] < mean["percent"] < mean["high"]


def test_fig3_counts_and_intervals(metrics):
    _, data = fig3_weak_generation.draw(metrics)
    counting = value(metrics, "pretrained", "weak_generation_n", "counting")
    k = int((counting["value"] * counting["n"]).round().sum())
    row = data[(data["panel"] == "a") & (data["group"] == "counting")].iloc[0]
    assert (row["k"], row["n"]) == (k, counting["n"].sum())
    interval = binomtest(k, int(counting["n"].sum())).proportion_ci(method="wilson")
    assert (row["low"], row["high"]) == pytest.approx((100 * interval.low, 100 * interval.high))
    assert data.loc[data["panel"] == "b", "n"].sum() == data.loc[data["panel"] == "a", "n"].sum()


def test_fig4_gains_are_paired_differences_and_follow_the_data(metrics):
    _, data = fig4_gains.draw(metrics)
    before, after = (value(metrics, method, "nonunified", "overall")["value"] for method in ("pretrained", "sft"))
    row = data[(data["part"] == "bars") & (data["quantity"] == "unification") & (data["method"] == "sft")]
    row = row.set_index("subtask").loc["overall"]
    assert row["gain"] == pytest.approx(100 * (before - after).mean())
    assert row["gain_low"] < row["gain"] < row["gain_high"]

    scatter = data[(data["part"] == "scatter") & (data["method"] == "dpo")]
    assert len(scatter) == 3 * len(SUBTASKS)
    rho = data[(data["part"] == "correlation") & (data["method"] == "dpo")]["rho"].item()
    assert rho == pytest.approx(spearmanr(scatter["initial_nonunified"].round(9), scatter["gain"].round(9)).statistic)

    worse = metrics.copy()
    worse.loc[(worse["method"] == "sft") & (worse["metric"] == "generation"), "value"] = 0.0
    altered = fig4_gains.gains_data(worse)
    assert (altered.loc[(altered["quantity"] == "generation") & (altered["method"] == "sft"), "gain"] < 0).all()


def test_fig5_pools_counts_and_pairs_changes(metrics):
    _, data = fig5_win_rate.draw(metrics)
    wins = data[(data["panel"] == "a") & (data["method"] == "sft")].set_index("subtask")
    assert wins.loc["overall", "k"] == wins.loc[list(SUBTASKS), "k"].sum()
    counts = {
        name: value(metrics, "sft", f"triple_{name}", "complex")["value"].sum() for name in ("010", "101", "001", "110")
    }
    assert wins.loc["complex", "k"] == counts["010"] + counts["101"]
    assert wins.loc["complex", "n"] == sum(counts.values())

    change = fig5_win_rate.false_positive_change(metrics, "sft")["complex"]
    triples = {
        name: value(metrics, "sft", f"triple_{name}", "complex")["value"] for name in ("000", "001", "010", "011")
    }
    negatives = sum(triples.values())
    rate_before, rate_after = (
        (triples["010"] + triples["011"]) / negatives,
        (triples["001"] + triples["011"]) / negatives,
    )
    assert change.to_numpy() == pytest.approx((rate_after - rate_before).to_numpy())

    no_change = metrics[metrics["metric"] == "understanding_win_rate"].assign(value=0.5, n=0)
    flat = fig5_win_rate.win_rate_data(no_change)
    assert (flat["percent"] == 50).all() and flat[["low", "high"]].isna().all(axis=None)


def test_co_degradation_flags_what_the_data_say(arms):
    """sft_shuffled draws worse and says yes more often; dpo_swapped draws worse and says so; sft_oracle gets better."""
    changes = co_degradation.changes_data(arms)
    assert co_degradation.flagged(changes) == ["sft_shuffled"]
    mean = changes[changes["seed"].isna()].set_index(["method", "metric"])["change"]
    for metric in ("generation", "balanced_accuracy", "nonunified"):
        before, after = (value(arms, name, metric, "overall")["value"] for name in ("pretrained", "sft_shuffled"))
        assert mean["sft_shuffled", metric] == pytest.approx(100 * (after - before).mean())
    assert mean["sft_shuffled", "nonunified"] < 0 < mean["sft_oracle", "generation"]
    single = co_degradation.changes_data(arms[arms["seed"] == 0])
    assert co_degradation.flagged(single) == [] and single[["low", "high"]].isna().all(
        axis=None
    )  # no interval, no flag
    honest = arms.copy()
    honest.loc[(honest["method"] == "sft_shuffled") & (honest["metric"] == "nonunified"), "value"] = 0.9
    assert co_degradation.flagged(co_degradation.changes_data(honest)) == []


def test_co_degradation_pools_labels_and_recomputes_auc(arms):
    _, data = co_degradation.draw(arms)
    checks = arms[(arms["metric"] == "precision_chosen") & (arms["method"] == "sft_shuffled")]
    pooled = data[(data["part"] == "precision") & (data["method"] == "sft_shuffled") & data["seed"].isna()].iloc[0]
    assert (pooled["k"], pooled["n"]) == (round(100 * checks["value"].sum()), 400)
    interval = binomtest(int(pooled["k"]), 400).proportion_ci(method="wilson")
    assert (pooled["low"], pooled["high"]) == pytest.approx((100 * interval.low, 100 * interval.high))

    better, worse = [], []
    for method in ("sft", "dpo", "sft_shuffled", "sft_oracle", "dpo_swapped"):
        for seed in range(4):
            changes = [
                value(arms, method, metric, "overall")["value"][seed]
                - value(arms, "pretrained", metric, "overall")["value"][seed]
                for metric in ("generation", "balanced_accuracy")
            ]
            yes_rate = value(arms, method, "mismatched_yes_rate", "overall")["value"][seed]
            if min(changes) >= 0.005:
                better.append(-yes_rate)
            elif max(changes) <= -0.005:
                worse.append(-yes_rate)
    auc = data[(data["part"] == "auc") & (data["measure"] == "mismatched_yes_rate") & (data["outcome"] == "both")].iloc[
        0
    ]
    assert (auc["better"], auc["worse"]) == (len(better), len(worse)) and better and worse
    assert auc["auc"] == pytest.approx(mannwhitneyu(better, worse).statistic / (len(better) * len(worse)))


def test_a_change_of_a_few_scenes_is_no_outcome():
    """Of two runs of each, generation moves by far more than half a point and balanced accuracy by less, by it, or not alike."""
    moves = {
        "sft": (10, 0.49),
        "sft_oracle": (10, 0.5),
        "dpo": (10, -3),
        "sft_shuffled": (-40, -0.49),
        "sft_swapped": (-40, -0.5),
    }
    cases = pd.DataFrame(
        [(method, seed, f"base-{seed}", *changes) for method, changes in moves.items() for seed in (0, 1)],
        columns=["method", "seed", "model", "generation", "balanced_accuracy"],
    ).assign(**dict.fromkeys(co_degradation.MEASURES, 0.5))
    counted = co_degradation.auc_data(cases).groupby("outcome")[["better", "worse"]].agg(["min", "max"])
    assert counted.loc["both"].tolist() == [2, 2, 2, 2] and counted.loc["generation"].tolist() == [6, 6, 4, 4]
    none = co_degradation.auc_data(cases[cases["method"].isin(["sft", "sft_shuffled"])]).set_index("outcome")
    assert none.loc["both", ["auc", "low", "high"]].isna().all(axis=None) and (none.loc["both", "better"] == 0).all()


def test_samples_are_the_first_prompt_of_each_subtask():
    images, pixels = evaluation_images(0)
    rows = samples.first_prompts(images, pixels)
    assert rows["prompt_id"].tolist() == list(range(0, 2 * len(SUBTASKS), 2))
    assert rows["row"].tolist() == list(range(0, 2 * len(SUBTASKS), 2)) and (rows["image"] == 0).all()
    with pytest.raises(SystemExit, match="17 images, images.csv 18"):
        samples.first_prompts(images, pixels[1:])


def test_curriculum_changes_are_paired_and_unlocked_prompts_pooled(metrics):
    every, phases = curriculum_runs(["c_sft", "c_sft_random", "c_dpo"], metrics)
    _, data = curriculum.draw(every, phases)
    means = data[(data["part"] == "changes") & data["seed"].isna()].set_index(["method", "against", "quantity"])
    for method, against in (("c_sft", "sft"), ("c_dpo", "dpo"), ("c_sft", "c_sft_random")):
        after, before = (value(every, name, "nonunified", "overall")["value"] for name in (method, against))
        row = means.loc[(method, against, "nonunified")]
        assert row["change"] == pytest.approx(100 * (before - after).mean())
        assert row["low"] < row["change"] < row["high"] and row["runs"] == 5
    assert ("c_sft_random", "c_sft", "nonunified") not in means.index
    unlocked = data[data["part"] == "unlocked"].set_index("method")
    assert list(unlocked.index) == ["c_sft", "c_dpo"]  # the control unlocks nothing by design
    counts = phases[phases["experiment"] == "c_dpo"]
    k, n = counts["prompts_unlocked"].sum(), counts.loc[counts["phase"] == 1, "prompts_discarded"].sum()
    interval = binomtest(int(k), int(n)).proportion_ci(method="wilson")
    shown = unlocked.loc["c_dpo", ["unlocked", "discarded", "percent", "low", "high"]].tolist()
    assert shown == pytest.approx([k, n, 100 * k / n, 100 * interval.low, 100 * interval.high])


def test_curriculum_draws_from_one_run_of_one_arm_with_nothing_discarded(metrics, tmp_path):
    every, phases = curriculum_runs(["c_sft"], metrics)
    every, phases = every[every["seed"] == 0], phases[phases["seed"] == 0]
    phases = phases.assign(prompts_discarded=0, prompts_unlocked=0, samples_added=0)
    save(*curriculum.draw(every, phases), tmp_path / "curriculum")
    assert (tmp_path / "curriculum.pdf").stat().st_size > 5000
    table = tab_curriculum.layout(tab_curriculum.table_data(every, phases))
    assert table.loc["C-SFT", ("ours", "Unlocked")] == "0 of 0"


def test_curriculum_table_sets_ours_beside_the_papers(metrics, tmp_path):
    every, phases = curriculum_runs(["c_sft", "c_sft_early", "c_sft_generation_only", "c_sft_random", "c_dpo"], metrics)
    data = tab_curriculum.table_data(every, phases)
    cells = data.set_index(["method", "quantity"])
    assert cells.loc[("c_sft", "generation"), "paper"] == 44.18
    assert cells.loc[("c_sft_early", "nonunified"), "paper"] == 17.14
    assert cells.loc[("c_dpo", "understanding_win_rate"), "paper"] == 56.00
    assert cells.loc[("c_sft", "samples_added"), "paper"] == 1091
    after, before = (value(every, name, "generation", "overall")["value"] for name in ("c_dpo", "dpo"))
    assert cells.loc[("c_dpo", "gain"), "value"] == pytest.approx(100 * (after - before).mean())
    added = phases[(phases["experiment"] == "c_sft") & (phases["phase"] == 2)]["samples_added"]
    assert cells.loc[("c_sft", "samples_added"), "value"] == added.mean()
    table = tab_curriculum.layout(data)
    assert table.loc["C-SFT, only generation", ("paper", "Samples added")] == "about 600"
    assert table.loc["SFT + random samples", ("ours", "Unlocked")] == "–"
    save_table(table, data, tmp_path / "tab_curriculum")
    latex, text = ((tmp_path / f"tab_curriculum{suffix}").read_text() for suffix in (".tex", ".md"))
    for written in (latex, text):
        assert "44.2" in written and "1,091" in written
    assert "_" not in latex and "%" not in latex.replace(r"\%", "")
    counts = phases[phases["experiment"] == "c_sft"].groupby("phase")[["samples_added", "samples"]].sum()
    percent = 100 * counts.loc[2, "samples_added"] / counts.loc[1, "samples"]
    assert cells.loc[("c_sft", "added_percent"), "value"] == pytest.approx(percent)
    assert table.loc["C-SFT", ("ours", "Samples added")] == f"{added.mean():.1f} ({percent:.1f} %)"


def test_a_bar_in_a_cell_begins_no_cell(tmp_path):
    statements = pd.Index(["log p(x | y) rises.", "It falls."], name="statement")
    table = pd.DataFrame({"verdict": ["reproduced", "a | b"]}, index=statements)
    save_table(table, table.reset_index(), tmp_path / "claims")
    latex, text = ((tmp_path / f"claims{suffix}").read_text() for suffix in (".tex", ".md"))
    rows = [re.split(r"(?<!\\)\|", line) for line in text.splitlines()]
    assert {len(row) for row in rows} == {4}
    assert rows[2][1].strip() == r"log p(x \| y) rises." and rows[3][2].strip() == r"a \| b"
    assert r"log p(x \textbar{} y) rises. & reproduced" in latex and "|" not in latex


def test_judges_sets_each_quantity_by_the_judge_beside_the_oracles(judged):
    by_oracle, by_judge, probes = judges.read_inputs(judged)
    figure, data = judges.draw(by_oracle, by_judge, probes)
    save(figure, data, judged[0].parent / "judges")
    means = data[data["seed"].isna()].set_index(["quantity", "method", "by", "less"])[["value", "low", "high", "holds"]]
    raw = pd.concat([pd.read_csv(file) for file in judged if file.name == "metrics.csv"])
    cells = raw[raw["subtask"] == "overall"].set_index(["metric", "method", "judge", "seed"])["value"]

    shares = {judge: 100 * cells["generation"].xs(judge, level="judge") for judge in ("oracle", "embedded")}
    gains = {judge: (share["sft"] - share["pretrained"]).mean() for judge, share in shares.items()}
    assert means.loc[("gain in generation", "sft", "oracle", ""), "value"] == pytest.approx(gains["oracle"])
    row = means.loc[("gain in generation", "sft", "embedded", "oracle")]
    assert row["value"] == pytest.approx(gains["embedded"] - gains["oracle"])
    assert row["low"] < row["value"] < row["high"]
    level = means.loc[("generation", "dpo", "embedded", "oracle")]
    assert level["value"] == pytest.approx((shares["embedded"]["dpo"] - shares["oracle"]["dpo"]).mean())
    assert level["low"] > 0  # it accepts three of ten wrong images and rejects one of twenty right ones
    corrected = means.loc[("generation", "dpo", "corrected", "oracle")]
    assert corrected["low"] < 0 < corrected["high"] and abs(corrected["value"]) < level["value"] / 2

    weak = raw[(raw["metric"] == "weak_generation_n") & raw["subtask"].isin(SUBTASKS) & (raw["judge"] == "embedded")]
    weak = weak[weak["method"] == "pretrained"]
    k, n = (weak["value"] * weak["n"]).sum(), weak["n"].sum()
    interval = binomtest(round(k), int(n)).proportion_ci(method="wilson")
    row = means.loc[("weak generation", "pretrained", "embedded", "")]
    assert row[["value", "low", "high"]].tolist() == pytest.approx(
        [100 * k / n, 100 * interval.low, 100 * interval.high]
    )
    assert row["holds"] == "yes" and means.loc[("gain in generation", "sft", "oracle", ""), "holds"] == "yes"
    assert means.loc[("generation", "dpo", "oracle", ""), "holds"] == ""

    errors = data[data["panel"] == "c"].set_index(["images", "error"])["percent"]
    wrong = probes[probes["label"] == 0]
    expected = wrong.groupby(["seed", "subtask"])["judge_verdict"].mean().groupby("seed").mean().mean()
    assert errors["labelled\nscenes", "false_positive_rate"] == pytest.approx(100 * expected)


def test_corrected_values_are_those_of_the_probe_by_hand(judged):
    by_oracle, by_judge, probes = judges.read_inputs(judged)
    data = judges.conclusions_data(by_oracle, by_judge, probes)
    errs = probes.assign(wrong=probes["judge_verdict"] != probes["label"])
    rates = errs.groupby(["label", "seed", "subtask"])["wrong"].mean()
    values = []
    for seed in range(5):
        rows = by_judge[(by_judge["seed"] == seed) & (by_judge["method"] == "sft")]
        score = rows[rows["metric"] == "generation"].set_index("subtask")["value"]
        values.append(
            np.mean([rogan_gladen(score[name], rates[0, seed, name], rates[1, seed, name]) for name in SUBTASKS])
        )
    shown = data[(data["quantity"] == "generation") & (data["method"] == "sft") & (data["by"] == "corrected")]
    shown = shown[shown["less"] == ""].set_index("seed")["value"]
    assert shown[shown.index.notna()].tolist() == pytest.approx([100 * one for one in values])
    assert shown[shown.index.isna()].item() == pytest.approx(100 * np.mean(values))


def test_a_judge_without_errors_moves_nothing(tmp_path):
    inputs = judges.read_inputs(write_judged_runs(tmp_path, seeds=3, false_positives=0, false_negatives=0))
    data = judges.conclusions_data(*inputs)
    differences = data[data["less"] == "oracle"]
    np.testing.assert_allclose(differences[["value", "low", "high"]].fillna(0), 0, atol=1e-9)
    words = data[data["seed"].isna() & (data["less"] == "")].pivot(
        index=["quantity", "method"], columns="by", values="holds"
    )
    assert (words["oracle"] == words["embedded"]).all() and "yes" in set(words["oracle"])


def test_judges_draws_twice_alike_from_one_run_and_with_quality_checks(judged, arms, tmp_path):
    one = [file for file in judged if "seed=0" in str(file)]
    for copy in ("first", "second"):
        save(*judges.draw(*judges.read_inputs(one)), tmp_path / copy)
    for suffix in (".pdf", ".png", ".csv"):
        assert (tmp_path / f"first{suffix}").read_bytes() == (tmp_path / f"second{suffix}").read_bytes()
    checks = arms[(arms["metric"] == "precision_chosen") & arms["method"].isin(["sft", "dpo"])]
    checks = pd.concat([checks, checks.assign(judge="embedded", value=checks["value"] - 0.1)])
    checks.to_csv(tmp_path / "quality_check.csv", index=False)
    inputs = judges.read_inputs([*judged, tmp_path / "quality_check.csv"])
    data = judges.conclusions_data(*inputs)
    precision = data[(data["quantity"] == "precision of training set") & data["seed"].isna()]
    assert precision.loc[precision["less"] == "oracle", "value"].tolist() == pytest.approx([-10, -10])
    table = tab_judges.layout(data)
    assert table.loc["precision of training set, DPO", "judge less oracle"].startswith("-10.0 [")


def test_judges_table_prints_what_the_figure_draws(judged, tmp_path):
    data = judges.conclusions_data(*judges.read_inputs(judged))
    table = tab_judges.layout(data)
    rows = data[data["seed"].isna()].set_index(["quantity", "method", "by", "less"])
    row = rows.loc[("generation", "sft", "embedded", "oracle")]
    assert table.loc["generation, SFT", "judge less oracle"].startswith(f"{row['value']:+.1f} [{row['low']:+.1f}, ")
    assert table.loc["weak generation, pre-trained", "oracle: conclusion"] == "above 50? yes"
    assert table.loc["win rate, DPO", "corrected"] == "–"
    save_table(table, data, tmp_path / "tab_judges")
    latex = (tmp_path / "tab_judges.tex").read_text()
    assert "gain in generation, DPO" in latex and "_" not in latex and "%" not in latex


@pytest.mark.parametrize("name", FIGURES)
def test_a_reader_of_the_oracle_sees_no_other_judge(name, judged, tmp_path):
    """The same files with and without the rows of the imperfect judge give the same figure."""
    files = [file for file in judged if file.name == "metrics.csv"]
    both = read_metrics(files)
    alone = pd.concat([pd.read_csv(file) for file in files], ignore_index=True)
    alone = alone[alone["judge"] != "embedded"]
    assert len(alone) == len(both) < sum(len(pd.read_csv(file)) for file in files)
    for copy, metrics in (("both", both), ("alone", alone)):
        save(*draw(name, metrics), tmp_path / copy)
    assert (tmp_path / "both.csv").read_bytes() == (tmp_path / "alone.csv").read_bytes()


def test_judges_never_mix(judged, tmp_path):
    embedded = read_metrics([file for file in judged if file.name == "metrics.csv"], "embedded")
    assert set(embedded["judge"]) == {"none", "embedded"}
    alone = write_judged_runs(tmp_path, seeds=1)
    for file in alone:
        rows = pd.read_csv(file)
        if "judge" in rows:
            rows[rows["judge"] != "embedded"].to_csv(file, index=False)
    with pytest.raises(SystemExit, match="with one base model there is no other judge"):
        judges.read_inputs(alone)
    pd.read_csv(alone[0]).drop(columns="judge").to_csv(tmp_path / "old.csv", index=False)
    with pytest.raises(SystemExit, match="has no column judge"):
        read_metrics([tmp_path / "old.csv"])


def test_same_run_twice_is_refused(metrics, tmp_path):
    metrics[(metrics["seed"] == 0) & (metrics["method"] == "sft")].to_csv(tmp_path / "metrics.csv", index=False)
    with pytest.raises(SystemExit, match="given twice"):
        read_metrics([tmp_path / "metrics.csv"] * 2)


def test_table1_sets_ours_beside_the_papers(metrics, tmp_path):
    data = tab1_main.table_data(metrics)
    cells = data.set_index(["metric", "subtask", "method"])
    ours = value(metrics, "dpo", "generation", "texture")["value"]
    assert cells.loc[("generation", "texture", "dpo"), "percent"] == pytest.approx(100 * ours.mean())
    assert cells.loc[("generation", "texture", "dpo"), "paper"] == 40.98
    assert cells.loc[("understanding_win_rate", "overall", "sft"), "paper"] == 58.39
    assert np.isnan(cells.loc[("generation", "texture", "sft_accept_all"), "paper"])
    save_table(tab1_main.layout(data), data, tmp_path / "tab1_main")
    latex, text = ((tmp_path / f"tab1_main{suffix}").read_text() for suffix in (".tex", ".md"))
    assert latex.count("\\toprule") == latex.count("\\midrule") == latex.count("\\bottomrule") == 1
    for written in (latex, text):
        assert f"{100 * ours.mean():.1f} [" in written and "41.0" in written
    assert "_" not in latex and "%" not in latex


def test_paper_cells_that_do_not_exist_are_nan():
    assert np.isnan(paper_cell("janus_pro_7b", "sft", "overall", "balanced_accuracy"))
    assert np.isnan(paper_cell("janus_pro_7b", "sft", "easy", "generation"))
    assert paper_cell("show_o", "sft", "shape", "understanding_win_rate") == 100


def quality_file(folder, generation, understanding=0.9):
    folder.mkdir(parents=True)
    rows = [("generation", subtask, share, 100) for subtask, share in zip(SUBTASKS, generation, strict=True)]
    rows += [("generation", name, np.mean(generation[3 * i : 3 * i + 3]), 300) for i, name in enumerate(STRATA)]
    rows += [("generation", "overall", np.mean(generation), 900), ("own_verdict_yes_share", "overall", 1.0, 900)]
    for metric, share in (("understanding_balanced_accuracy", understanding), ("reconstruction", 0.98)):
        rows += [(metric, name, share, 300) for name in (*STRATA, "overall")]
    pd.DataFrame(rows, columns=["metric", "subtask", "value", "n"]).to_csv(folder / "quality.csv", index=False)
    return folder / "quality.csv"


def test_base_model_table_passes_and_fails(tmp_path):
    good = quality_file(tmp_path / "base=0", [0.6] * 3 + [0.5] * 3 + [0.3] * 3)
    flat = quality_file(tmp_path / "base=1", [0.5] * 9, understanding=0.849)
    data = tab_base_model.table_data(tab_base_model.read_quality([good, flat]))
    passes = data.set_index(["base", "metric", "subtask"])["passes"]
    assert passes[0, "understanding_balanced_accuracy", "overall"] and passes[0, "generation", "overall"]
    assert not passes[1, "understanding_balanced_accuracy", "overall"]
    assert not passes[0, "own_verdict_yes_share", "overall"]  # all yes
    assert passes[0, "strata_differ", ""] and not passes[1, "strata_differ", ""]
    table = tab_base_model.layout(data)
    right = table.loc["Generation, own images right (%)"]["base 0"]
    assert right.to_dict() == {"easy": "60.0", "medium": "50.0", "hard": "30.0", "overall": "46.7 pass"}
    assert "FAIL" in table["base 1"].to_string() and "at least 85" in table["criterion"].tolist()
    with pytest.raises(SystemExit, match="base=<number>"):
        tab_base_model.read_quality(["quality.csv"])


# The paper's scale


def test_strata_and_overalls_are_those_of_the_prompts(metrics, benchmarks):
    """Both worlds have a counting and a complex: hard in the embedded one, of an easy and a medium benchmark in the other."""
    assert {stratum: tuple(names) for stratum, names in strata_of(metrics).items()} == STRATA
    assert rows_of(metrics) == [*SUBTASKS, "overall"]
    t2i, geneval = (list(subtasks) for subtasks in BENCHMARKS.values())
    assert strata_of(benchmarks) == {"easy": geneval, "medium": t2i}
    assert overalls_of(benchmarks) == {"overall_t2i_compbench": t2i, "overall_geneval": geneval}
    fewer = benchmarks[~benchmarks["subtask"].isin(t2i) & (benchmarks["subtask"] != "position")]
    assert strata_of(fewer) == {"easy": [name for name in geneval if name != "position"]}
    with pytest.raises(SystemExit, match="No stratum is known for numeracy; add"):
        strata_of(benchmarks.replace({"subtask": {"counting": "numeracy"}}))


def test_fig2_sets_the_papers_cells_below_ours(benchmarks):
    _, data = fig2_nonunified.draw(benchmarks)
    cells = data[data["panel"] == "a"].set_index(["model", "subtask"])
    assert len(cells) == 24 and cells.loc[("paper", "counting"), "percent"] == 2.5  # of GenEval, paper Table 6
    assert (
        cells.loc[("paper", "complex"), "stratum"] == "medium" and cells.loc[("paper", "counting"), "stratum"] == "easy"
    )
    ours, paper = (cells.loc[(name, "shape")] for name in ("janus_pro_7b-0", "paper"))
    assert ours["percent"] == pytest.approx(
        100 * value(benchmarks, "pretrained", "nonunified", "shape")["value"].mean()
    )
    beyond = abs(ours["percent"] - 43) > paper["tolerance"]
    assert paper["percent"] == 43 and paper["verdict"] == ("beyond noise" if beyond else "within noise")
    assert list(data.loc[data["panel"] == "c", "stratum"].unique()) == ["easy", "medium", "overall"]


def test_fig3_names_its_judge_and_counts_every_subtask(benchmarks):
    figure, data = fig3_weak_generation.draw(benchmarks)
    counts = data[data["panel"] == "a"].set_index("group")
    assert len(counts) == 12 and set(counts["checked_by"]) == {"qwen2_5_vl_7b"}
    assert data.loc[data["panel"] == "b", "group"].tolist() == ["medium", "easy"]
    assert data.loc[data["panel"] == "b", "n"].sum() == counts["n"].sum()
    drawn = [points.get_offsets() for points in figure.axes[0].collections if len(points.get_offsets()) == 2]
    assert sorted(offsets[1][1] for offsets in drawn) == [84.6, 86.2]  # the paper's Janus-Pro on texture


def test_fig4_and_fig5_set_the_papers_cells_beside_ours(benchmarks):
    _, gains = fig4_gains.draw(benchmarks)
    paper = gains[gains["part"] == "paper"].set_index(["quantity", "method", "subtask"])["after"]
    assert len(paper) == 2 * 2 * 14
    assert paper["generation", "sft", "texture"] == 53.93 and paper["unification", "dpo", "color_attr"] == 87
    assert paper["generation", "dpo", "overall_geneval"] == 79.2
    assert len(gains[(gains["part"] == "scatter") & (gains["method"] == "sft")]) == 12

    figure, wins = fig5_win_rate.draw(benchmarks)
    assert len(figure.axes) == 2 and "balanced_accuracy" not in set(wins["metric"])  # as there are no labelled scenes
    paper = wins[wins["panel"] == "a, paper"].set_index(["method", "subtask"])["percent"]
    assert round(paper["sft", "spatial"], 2) == 26.67 and round(paper["dpo", "overall_t2i_compbench"], 2) == 55.62
    ours = wins[(wins["panel"] == "a") & (wins["method"] == "dpo")].set_index("subtask")
    geneval = list(BENCHMARKS["geneval"])
    assert ours.loc["overall_geneval", ["k", "n"]].tolist() == ours.loc[geneval, ["k", "n"]].sum().tolist()


def test_table1_marks_what_is_beyond_noise_and_what_was_not_run(benchmarks, tmp_path):
    data = tab1_main.table_data(benchmarks[benchmarks["method"] != "dpo"])
    assert "balanced_accuracy" not in set(data["metric"]) and list(data["method"].unique()) == [
        "pretrained",
        "sft",
        "dpo",
    ]
    table = tab1_main.layout(data)
    assert table.loc[("Generation ↑", "GenEval"), ("ours", "DPO")] == "not run"
    assert table.loc[("Generation ↑", "GenEval"), ("paper", "DPO")] == "79.2"
    row = data.set_index(["metric", "subtask", "method"]).loc["generation", "spatial", "sft"]
    assert row["paper"] == 23.73 and row["percent"] - 23.73 > row["tolerance"]  # invented images are far too good
    assert table.loc[("Generation ↑", "spatial"), ("paper", "SFT")] == f"23.7 ± {row['tolerance']:.1f}*"
    save_table(table, data, tmp_path / "tab1_main")
    assert "_" not in (tmp_path / "tab1_main.tex").read_text()


@pytest.mark.parametrize("name", FIGURES)
def test_a_model_without_cells_in_the_paper_is_drawn_all_the_same(name, benchmarks, tmp_path):
    """Janus-Pro-1B, whose one run leaves win rates of nothing."""
    small = benchmarks[benchmarks["seed"] == 0].assign(model="janus_pro_1b-0")
    empty = (small["metric"] == "understanding_win_rate") & (small["subtask"] == "colors")
    small.loc[empty, ["value", "n"]] = (0.5, 0)
    _, data = drawn = draw(name, small)
    save(*drawn, tmp_path / name)
    assert "verdict" not in data or set(data["verdict"].dropna()) == {"not run"}


def test_samples_say_what_judge_and_benchmark_say():
    images, pixels = evaluation_images(0)
    names = dict(zip(SUBTASKS, BENCHMARKS["geneval"], strict=False))
    chosen = images["subtask"].isin(names)
    images = images[chosen].assign(score=0.25, prompt="a photo of a rather long list of things " * 4)
    images["subtask"] = images["subtask"].map(names)
    figure, data = samples.draw([(images, pixels[: 2 * len(names)])] * 3)
    assert data["subtask"].tolist() == [*BENCHMARKS["geneval"]] * 3
    notes = [text.get_text() for axes in figure.axes for text in axes.texts if "judge" in text.get_text()]
    assert len(notes) == 18 and all(note.endswith("score: 0.25") for note in notes)


def test_command_lines_write_their_files_without_torch(metrics, arms, judged, tmp_path):
    metrics.to_csv(tmp_path / "metrics.csv", index=False)
    arms.to_csv(tmp_path / "arms.csv", index=False)
    quality = quality_file(tmp_path / "base=0", [0.5] * 9)
    evaluations = []
    for seed in range(3):
        images, pixels = evaluation_images(seed)
        images.to_csv(tmp_path / f"images{seed}.csv", index=False)
        np.save(tmp_path / f"images{seed}.npy", pixels)
        evaluations += [str(tmp_path / f"images{seed}.csv"), str(tmp_path / f"images{seed}.npy")]
    jobs = {f"figures.{name}": [str(tmp_path / "metrics.csv")] for name in FIGURES}
    jobs |= {"figures.samples": evaluations, "tables.tab1_main": [str(tmp_path / "metrics.csv")]}
    jobs["figures.co_degradation"] = [str(tmp_path / "arms.csv")]
    jobs["tables.tab_base_model"] = [str(quality)]
    jobs["figures.judges"] = jobs["tables.tab_judges"] = [str(file) for file in judged]
    (tmp_path / "curriculum").mkdir()
    for name, table in zip(("metrics", "phases"), curriculum_runs(["c_sft"], metrics), strict=True):
        table.to_csv(tmp_path / f"curriculum/{name}.csv", index=False)
    inputs = [str(tmp_path / f"curriculum/{name}.csv") for name in ("metrics", "phases")]
    jobs |= {"figures.curriculum": inputs, "tables.tab_curriculum": inputs}
    code = (
        "import runpy, sys\n"
        f"for name, inputs in {jobs}.items():\n"
        f"    sys.argv = [name, '--inputs', *inputs, '--output', {str(tmp_path / 'out')!r} + '/' + name.split('.')[1]]\n"
        "    runpy.run_module('replication.' + name, run_name='__main__')\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    figures, tables = (
        (*FIGURES, "judges", "samples", "co_degradation", "curriculum"),
        ("tab1_main", "tab_base_model", "tab_curriculum", "tab_judges"),
    )
    expected = {f"{name}.{suffix}" for name in figures for suffix in ("pdf", "png", "csv")}
    expected |= {f"{name}.{suffix}" for name in tables for suffix in ("tex", "md", "csv")}
    assert {path.name for path in (tmp_path / "out").iterdir()} == expected
