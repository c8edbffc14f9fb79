"""Sensitivity and the closed loop: the arms are what they say, and what is drawn is what was measured. How they are wired is
tested in test_workflow.py."""

import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from synthetic_runs import loop_runs, sensitivity_runs

from replication.config import load_paper, load_stage
from replication.figures import closed_loop, sensitivity
from replication.results import paper_values, read_of_runs
from replication.style import save
from replication.tables import tab_ablations
from replication.tables.writing import save_table

STAGES = ("origin", "candidates", "supervision", "post_training", "evaluation")
NAMED = {"experiment", "method"}  # of an arm, in its evaluation
CHANGED = {  # arm: its parent, and all that differs, with the values
    "s_n_2": ("sft", {"supervision.candidates_per_prompt": 2}),
    "s_n_8": ("sft", {"supervision.candidates_per_prompt": 8}),
    "s_n_16": ("sft", {"candidates.candidates_per_prompt": 16, "supervision.candidates_per_prompt": 16}),
    "s_threshold_lax": ("sft", {"supervision.threshold": -3.4}),
    "s_threshold_stricter": ("sft", {"supervision.threshold": 3.9}),
    "s_rule_best": ("sft", {"supervision.rule": "best"}),
    "s_rule_top": ("sft", {"supervision.rule": "top"}),
    "s_rule_random": ("sft", {"supervision.rule": "random"}),
    "s_rule_random_dpo": ("dpo", {"supervision.rule": "random"}),
    "s_rule_three": ("sft", {"supervision.images_per_prompt": 3}),
    "s_modules_aligner": ("sft", {"post_training.trained_modules": "language_model|generation_aligner"}),
    "s_lr_sft_third": ("sft", {"post_training.learning_rate": 1e-4}),
    "s_lr_sft_triple": ("sft", {"post_training.learning_rate": 9e-4}),
    "s_lr_dpo_third": ("dpo", {"post_training.learning_rate": 3.3e-5}),
    "s_lr_dpo_triple": ("dpo", {"post_training.learning_rate": 3e-4}),
    "s_beta_0_01": ("dpo", {"post_training.beta": 0.01}),
    "s_beta_0_03": ("dpo", {"post_training.beta": 0.03}),
    "s_beta_0_3": ("dpo", {"post_training.beta": 0.3}),
    "s_beta_1": ("dpo", {"post_training.beta": 1.0}),
    "s_cfg_dropout_10": ("sft", {"post_training.condition_dropout": 0.1}),
    "s_guidance_3_sft": ("sft", {"evaluation.guidance_scale": 3.0}),
    "s_guidance_5_cfg_dropout": (
        "sft",
        {"origin.evaluates": "s_cfg_dropout_10", "evaluation.guidance_scale": 5.0},
    ),
    "loop_2": ("sft", {"origin.starts_from": "sft"}),
    "loop_3": ("sft", {"origin.starts_from": "loop_2"}),
    "loop_oracle_2": ("sft_oracle", {"origin.starts_from": "sft_oracle"}),
    "loop_dpo_3": ("dpo", {"origin.starts_from": "loop_dpo_2"}),
}


@pytest.mark.parametrize("arm", CHANGED)
def test_an_arm_differs_from_its_parent_in_its_setting_only(arm):
    parent, expected = CHANGED[arm]
    differing = {}
    for stage in STAGES:
        ours, theirs = (load_stage(stage, "tiny", experiment=name) for name in (arm, parent))
        differing |= {f"{stage}.{key}": ours[key] for key in ours if ours[key] != theirs[key]}
    if "origin.evaluates" in differing:  # and the verdicts are those of the model that is evaluated
        assert differing.pop("origin.verdicts_from") == differing["origin.evaluates"]
    names = {"evaluation.experiment": arm, "evaluation.method": arm}
    if not arm.startswith("s_guidance_"):
        names["origin.evaluates"] = arm
    assert differing == expected | names


@pytest.mark.parametrize("preset", ["smoke", "tiny", "full"])
def test_figures_know_every_arm_of_the_presets(preset):
    shown = load_paper(preset)["figures"]
    settings = {arm for choices in sensitivity.SETTINGS.values() for arm in choices}
    for arm in shown["sensitivity"]["experiments"]:
        assert arm in settings or arm.startswith("s_n_")
    for arm in shown["sensitivity"]["guided"]:
        scale, model = re.fullmatch(r"s_guidance_(\d)_(\w+)", arm).groups()
        assert load_stage("evaluation", preset, experiment=arm)["guidance_scale"] == int(scale)
        method = sensitivity.GUIDED[model]
        evaluated = load_stage("origin", preset, experiment=arm)["evaluates"]
        assert evaluated == ("baseline" if method == "pretrained" else method)
    loops = shown["closed_loop"]["experiments"]
    drawn = [method for first in closed_loop.LOOPS for method in closed_loop.rounds_of(first, {"sft", *loops}).values()]
    assert set(loops) <= {*drawn, closed_loop.LONGER}
    for first in closed_loop.LOOPS:
        rounds = closed_loop.rounds_of(first, set(loops))
        for number in range(2, len(rounds)):
            assert load_stage("origin", preset, experiment=rounds[number])["starts_from"] == rounds[number - 1]


ARMS, GUIDED = ["s_n_2", "s_n_4", "s_modules_aligner", "s_beta_1"], ["s_guidance_2_baseline", "s_guidance_2_sft"]


@pytest.fixture(scope="module")
def arms():
    return sensitivity_runs(ARMS, GUIDED, seeds=4)


@pytest.fixture(scope="module")
def loops():
    return loop_runs(["loop_2", "loop_3", "dpo", "loop_dpo_2"], seeds=4)


def overall(metrics, method, metric):
    rows = metrics[(metrics["method"] == method) & (metrics["metric"] == metric) & (metrics["subtask"] == "overall")]
    return rows.set_index("seed")["value"]


def mean_of(data, **keys):
    rows = data[(data[list(keys)] == pd.Series(keys)).all(axis=1) & data["seed"].isna()]
    assert len(rows) == 1
    return rows.iloc[0]


@pytest.mark.parametrize("name", ["sensitivity", "closed_loop"])
def test_figures_are_drawn_twice_alike_and_from_one_run(name, arms, loops, tmp_path):
    module, tables = {"sensitivity": (sensitivity, arms), "closed_loop": (closed_loop, loops)}[name]
    for copy, seeds in (("first", 2), ("second", 2), ("single", 1)):
        save(*module.draw(*(table[table["seed"] < seeds] for table in tables)), tmp_path / copy)
    for suffix in (".pdf", ".png", ".csv"):
        first, second, single = ((tmp_path / f"{copy}{suffix}").read_bytes() for copy in ("first", "second", "single"))
        assert first == second != single and len(single) > 500


def test_sensitivity_shows_paired_changes_samples_and_the_papers(arms):
    metrics, supervision = arms
    _, data = sensitivity.draw(metrics, supervision)
    changes = data[data["part"] == "changes"]
    for metric, sign in (("generation", 1), ("nonunified", -1), ("balanced_accuracy", 1)):
        difference = 100 * sign * (overall(metrics, "s_beta_1", metric) - overall(metrics, "pretrained", metric))
        row = mean_of(changes, method="s_beta_1", quantity=metric)
        assert row["value"] == pytest.approx(difference.mean()) and row["low"] < row["value"] < row["high"]
        runs = changes[(changes["method"] == "s_beta_1") & (changes["quantity"] == metric) & changes["seed"].notna()]
        np.testing.assert_allclose(runs.set_index("seed")["value"], difference)
    numbers = data[data["part"] == "candidates"]
    assert numbers.groupby("method")["candidates"].unique().str[0].to_dict() == {"s_n_2": 2, "s_n_4": 4, "sft": 10}
    counts = supervision[(supervision["experiment"] == "s_n_4") & (supervision["metric"] == "samples")]["value"]
    assert mean_of(numbers, method="s_n_4", quantity="samples")["value"] == pytest.approx(100 * counts.mean() / 90)
    paper = data[data["part"] == "paper"].set_index("candidates")["value"]
    assert paper.to_dict() == pytest.approx({2: 100 * 254 / 6000, 10: 100 * 2265 / 6000})
    guidance = data[data["part"] == "guidance"]
    assert set(zip(guidance["method"], guidance["scale"], strict=True)) == {
        ("pretrained", 1),
        ("pretrained", 2),
        ("sft", 1),
        ("sft", 2),
    }
    level = mean_of(guidance, method="sft", scale=2, quantity="nonunified")["value"]
    assert level == pytest.approx(100 * (1 - overall(metrics, "s_guidance_2_sft", "nonunified").mean()))


def test_settings_with_one_choice_are_not_drawn(arms):
    settings = sensitivity.shown_settings(sensitivity.changes_data(*arms))
    assert {setting: list(choices) for setting, choices in settings.items()} == {
        "selection rule": ["sft", "sft_accept_all"],
        "trained modules": ["sft", "s_modules_aligner"],
        "beta": ["dpo", "s_beta_1"],
    }


def test_a_loop_is_its_rounds_in_order(loops):
    metrics, images, supervision = loops
    _, data = closed_loop.draw(*loops)
    chain = {"sft": ["pretrained", "sft", "loop_2", "loop_3"], "dpo": ["pretrained", "dpo", "loop_dpo_2"]}
    for loop, methods in chain.items():
        rounds = data[data["loop"] == loop].drop_duplicates("round").set_index("round")["method"]
        assert rounds.to_dict() == dict(enumerate(methods))
    gain = 100 * (overall(metrics, "loop_3", "generation") - overall(metrics, "loop_2", "generation"))
    assert mean_of(data, loop="sft", round=3, quantity="gain")["value"] == pytest.approx(gain.mean())
    assert not ((data["round"] == 0) & data["quantity"].isin(["gain", "precision", "prompts_used", "win_rate"])).any()
    for number, experiment in ((0, "baseline"), (2, "loop_2")):  # of round 0, too, one image per prompt
        own = images[(images["experiment"] == experiment) & (images["image"] == 0)]
        entropy = mean_of(data, loop="sft", round=number, quantity="entropy")["value"]
        assert entropy == pytest.approx(-own["log_prob"].mean())  # equally many images of each subtask and run
    rows = supervision[supervision["experiment"] == "loop_dpo_2"].set_index("metric")["value"]
    assert mean_of(data, loop="dpo", round=2, quantity="prompts_used")["value"] == pytest.approx(
        100 * (rows["prompts_used"] / rows["prompts"].iloc[0]).mean()
    )
    triples = {
        name: metrics[
            (metrics["method"] == "loop_2")
            & (metrics["metric"] == f"triple_{name}")
            & (metrics["subtask"] == "overall")
        ]["value"].sum()
        for name in ("010", "101", "001", "110")
    }
    wins = mean_of(data, loop="sft", round=2, quantity="win_rate")
    assert wins["value"] == pytest.approx(100 * (triples["010"] + triples["101"]) / sum(triples.values()))
    assert wins["low"] < wins["value"] < wins["high"]


def test_ablations_have_the_papers_rows_even_where_they_were_not_run(arms, tmp_path):
    metrics, supervision = arms
    data = tab_ablations.table_data(metrics, supervision)
    cells = data.set_index(["setting", "choice", "quantity"])
    modules = cells.loc["trained modules"]
    ours = 100 * overall(metrics, "s_modules_aligner", "generation").mean()
    assert modules.loc[("+ aligner", "generation"), "value"] == pytest.approx(ours)
    stated = paper_values("ablations").set_index("setting")
    for choice, setting in (("+ aligner", "SFT, LLM + projector"), ("language model", "SFT, LLM only")):
        for metric in ("generation", "understanding_win_rate", "nonunified"):
            assert modules.loc[(choice, metric), "paper"] == stated.loc[setting, metric]
    assert np.isnan(modules.loc[("+ image embeddings, head", "generation"), "value"])
    assert modules.loc[("+ image embeddings, head", "generation"), "paper"] == 43.18
    assert list(cells.loc["candidates per prompt"].index.get_level_values("choice").unique()) == ["2", "4", "10"]
    save_table(tab_ablations.layout(data), data, tmp_path / "tab_ablations")
    text = (tmp_path / "tab_ablations.md").read_text()
    assert f"{ours:.1f} [" in text and "42.1" in text and "37.8" in text
    latex = (tmp_path / "tab_ablations.tex").read_text()
    assert latex.count("\\toprule") == latex.count("\\bottomrule") == 1 and "s_" not in latex


def test_command_lines_read_runs_from_paths_and_need_no_torch(arms, loops, tmp_path):
    files = {}
    for name, tables in (("sensitivity", arms), ("closed_loop", loops)):
        folder = tmp_path / name
        kinds = ("metrics", "supervision") if name == "sensitivity" else ("metrics", "images", "supervision")
        for kind, table in zip(kinds, tables, strict=True):
            for (experiment, seed), rows in table.groupby(["experiment", "seed"]):
                path = folder / f"{experiment}/seed={seed}/{kind}.csv"
                path.parent.mkdir(parents=True, exist_ok=True)
                rows = rows if kind == "metrics" else rows.drop(columns=["experiment", "seed"])
                rows.to_csv(path, index=False)
                files.setdefault(name, []).append(str(path))
    jobs = {"figures.sensitivity": files["sensitivity"], "tables.tab_ablations": files["sensitivity"]}
    jobs["figures.closed_loop"] = files["closed_loop"]
    code = (
        "import runpy, sys\n"
        f"for name, inputs in {jobs}.items():\n"
        f"    sys.argv = [name, '--inputs', *inputs, '--output', {str(tmp_path / 'out')!r} + '/' + name.split('.')[1]]\n"
        "    runpy.run_module('replication.' + name, run_name='__main__')\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "out").iterdir())) == 9
    data = pd.read_csv(tmp_path / "out/sensitivity.csv")
    expected = mean_of(sensitivity.changes_data(*arms), method="s_n_2", quantity="samples")["value"]
    shown = mean_of(data[data["part"] == "changes"], method="s_n_2", quantity="samples")["value"]
    assert shown == pytest.approx(expected, rel=1e-5)
    with pytest.raises(SystemExit, match="lies in no folder <experiment>/seed=<number>"):
        read_of_runs([tmp_path / "out/sensitivity.csv"])
