"""The workflow as a user meets it: it plans, it runs, and it reruns what an edit can change and nothing else."""

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
SMOKE = ["--config", "preset=smoke"]
TRAINED = ("sft", "sft_accept_all", "dpo", "sft_shuffled")  # the last is the poor supervision of smoke
CHECKED = ("sft", "dpo", "sft_shuffled")
MORE_ARMS = ("sft_swapped", "sft_flipped_50", "sft_shuffled", "sft_oracle", "dpo_swapped")  # of tiny
ARMS = ("c_sft",)  # of the curriculum in smoke
PHASES = (
    "phase_set",
    "phase_training",
    "phase_candidates",
    "last_phase_set",
    "last_phase_training",
)  # of two-phase runs


def run(folder, *command):
    """Run one of the environment's commands in `folder`; output and errors come back together."""
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    environment.pop("PYTHONPATH", None)
    text = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.run([BIN / command[0], *command[1:]], cwd=folder, env=environment, check=False, **text)


def copy_repository(folder):
    """The files of the checkout without its results, as a clone would have them."""
    listed = subprocess.check_output(["git", "ls-files", "-z", "-co", "--exclude-standard"], cwd=ROOT, text=True)
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file() and not name.startswith("paper_figures/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def planned(folder, *arguments):
    """What `snakemake -n` would do: a Counter of 'rule what', where `what` is an experiment, a figure, a table or empty."""
    done = run(folder, "snakemake", "-n", *arguments)
    assert done.returncode == 0, done.stdout
    jobs = Counter()
    for block in re.split(r"^\[.*\]$", done.stdout, flags=re.MULTILINE)[1:]:
        rule = re.search(r"^\s*(?:local)?rule (\w+):", block, re.MULTILINE)
        what = re.search(r"^\s*wildcards:.*\b(?:experiment|figure|table)=(\w+)", block, re.MULTILINE)
        if rule and "output:" in block:
            jobs[" ".join([rule[1], *(what.groups() if what else ())])] += 1
    assert jobs or "Nothing to be done" in done.stdout, done.stdout
    return jobs


def curriculum(arms, runs):
    """The Counter of training and evaluating each arm of the curriculum in two phases."""
    jobs = {f"{rule} {arm}": runs for arm in arms for rule in (*PHASES, "evaluation")}
    return Counter({job: count for job, count in jobs.items() if job != "phase_candidates c_sft_steps"})


def shown(*names):
    """The Counter of drawing each named figure and table once."""
    return Counter(f"{'table' if name.startswith(('tab', 'claims')) else 'figure'} {name}" for name in names)


JUDGED = Counter(["claims", "table claims"])
AFTER_TRAINING = JUDGED + shown(
    "fig4_gains", "fig5_win_rate", "samples", "co_degradation", "curriculum", "tab1_main", "tab_curriculum"
)


@contextmanager
def edited(path, old, new):
    """`path` with the first place of one text replaced, for as long as the block lasts."""
    text = path.read_text()
    assert old in text, f"{path} has no {old!r}"
    path.write_text(text.replace(old, new, 1))
    try:
        yield
    finally:
        path.write_text(text)


@pytest.fixture(scope="session")
def checkout(tmp_path_factory):
    """A fresh copy of the repository, for plans only."""
    return copy_repository(tmp_path_factory.mktemp("checkout"))


@pytest.fixture(scope="session")
def smoke(tmp_path_factory):
    """A copy of the repository in which the smoke preset has run from end to end."""
    folder = copy_repository(tmp_path_factory.mktemp("smoke"))
    done = run(folder, "snakemake", "--cores", "2", *SMOKE)
    if done.returncode:
        pytest.fail(f"The smoke preset failed:\n{done.stdout[-3000:]}", pytrace=False)
    return folder


@pytest.mark.parametrize(
    "command",
    [
        ("snakemake", "--lint"),
        ("snakefmt", "--check", "Snakefile", "rules"),
        ("ruff", "check", "."),
        ("ruff", "format", "--check", "."),
    ],
    ids=" ".join,
)
def test_code_is_clean(command):
    done = run(ROOT, *command)
    assert done.returncode == 0, done.stdout


def test_files_stay_small():
    limits = {"Snakefile": 40, "rules/*.smk": 150, "replication/**/*.py": 350}
    for pattern, limit in limits.items():
        for path in ROOT.glob(pattern):
            assert len(path.read_text().splitlines()) <= limit, path


def test_the_default_plan_and_the_targets_that_it_leaves_out(checkout):
    stations = ("supervision", "post_training", "evaluation")
    runs = {f"{rule} {experiment}": 5 for rule in stations for experiment in ("sft", "sft_accept_all", "dpo")}
    runs |= {"prompts": 1, "base_model": 3, "baseline_evaluation": 5, "candidates": 5}
    drawn = shown(
        "fig2_nonunified",
        "fig3_weak_generation",
        "fig4_gains",
        "fig5_win_rate",
        "samples",
        "tab1_main",
        "tab_base_model",
    )
    assert planned(checkout) == planned(checkout, "paper_figures") == Counter(runs) + drawn + JUDGED
    arms = {f"{rule} {experiment}": 5 for rule in stations for experiment in MORE_ARMS}
    arms |= {f"quality_check {experiment}": 5 for experiment in ("sft", "dpo", *MORE_ARMS)}
    arms = Counter(arms) + curriculum(["c_sft", "c_sft_random", "c_sft_steps", "c_dpo"], 5)
    arms += shown("co_degradation", "curriculum", "tab_curriculum")
    everything = planned(checkout, "paper_figures", "poor_supervision", "curriculum")
    assert everything == Counter(runs) + drawn + JUDGED + arms


@pytest.mark.parametrize(
    ("target", "experiments", "drawn"),
    [
        ("baseline", (), ("fig2_nonunified", "fig3_weak_generation", "tab_base_model")),
        ("sft", ("sft", "sft_accept_all"), ()),
        ("dpo", ("dpo",), ()),
        ("poor_supervision", CHECKED, ("co_degradation",)),
        ("curriculum", ("sft", "dpo", "c_sft"), ("curriculum", "tab_curriculum")),
        ("dynamics", (), ("simulation",)),
    ],
)
def test_a_target_plans_its_own_results_only(checkout, target, experiments, drawn):
    jobs = planned(checkout, target, *SMOKE)
    assert {job.split()[1] for job in jobs if job.split()[0].endswith("training")} == set(experiments)
    assert {job for job in jobs if job.startswith(("figure", "table"))} == set(shown(*drawn))


@pytest.mark.parametrize(("seed", "base"), [(0, 0), (2, 4), (4, 1)])
def test_runs_take_the_base_models_in_turn(checkout, seed, base):
    text = run(checkout, "snakemake", "-n", f"results/tiny/candidates/seed={seed}/candidates.csv").stdout
    assert f"--model results/tiny/base/base={base} " in text


def test_one_station_needs_what_is_before_it_only(checkout):
    assert planned(checkout, "results/tiny/candidates/seed=4/candidates.csv") == Counter(
        ["prompts", "base_model", "candidates"]
    )


def chain(checkout, experiment, preset="full"):
    """Per job of one planned run: its rule and what it reads and writes below the folder of that run, `base` the base model
    and `like` the run that it is a control of."""
    run_folder = f"results/{preset}/{experiment}/seed=3"
    text = run(checkout, "snakemake", "-n", f"{run_folder}/model", "--config", f"preset={preset}").stdout
    jobs = {}
    for block in re.split(r"^\[.*\]$", text, flags=re.MULTILINE):
        paths = dict(re.findall(r"^    (input|output): (.*)$", block, re.MULTILINE))
        if "output" in paths and run_folder in paths["output"]:
            output = paths["output"].split(", ")[0].removeprefix(f"{run_folder}/")
            inputs = paths["input"].replace(f"results/{preset}/base/base=0", "base").replace(f"{run_folder}/", "")
            command = re.search(r"python -m .*", block)[0]
            jobs[output] = {path for path in inputs.split(", ") if not path.startswith("replication/")}, command
    return jobs


def test_a_replay_is_a_chain_of_phases(checkout):
    jobs = chain(checkout, "c_sft_several")
    assert len(jobs) == 4 + 4 + 3  # training sets, models, candidates
    epochs = [re.search(r"--epochs (\d+) (\d+)", command) for _, command in jobs.values()]
    assert {match.groups() for match in epochs if match} == {("0", "2"), ("2", "5"), ("5", "8"), ("8", "10")}
    for phase, folder in ((1, "phase=1/"), (2, "phase=2/"), (3, "phase=3/"), (4, "")):
        training, _ = jobs[f"{folder}model"]
        start = "base" if phase == 1 else f"phase={phase - 1}/model"
        assert training == {start, "base", f"{folder}training_set.csv", f"{folder}codes.npy"}
        made, command = jobs[f"{folder}training_set.csv"]
        assert f"--phase {phase} " in command
        if phase > 1:
            drawn, command = jobs[f"phase={phase}/candidates/candidates.csv"]
            assert drawn == {start, f"phase={phase - 1}/next_prompts.csv"} and f"--purpose replay-{phase} " in command
            before = {f"phase={phase - 1}/{name}.csv" for name in ("phases", "training_set", "discard_pool")}
            new = {f"phase={phase}/candidates/candidates.csv", f"phase={phase}/candidates/codes.npy"}
            assert made == before | new | {f"phase={phase - 1}/codes.npy", "results/full/prompts/train.csv"}


@pytest.mark.parametrize(
    ("experiment", "draws", "judges"),
    [
        ("c_sft", "phase=1/model", "phase=1/model"),
        ("c_dpo", "phase=1/model", "phase=1/model"),
        ("c_sft_generation_only", "phase=1/model", "base"),
        ("c_sft_understanding_only", "base", "phase=1/model"),
    ],
)
def test_a_branch_that_is_not_strengthened_is_the_pretrained_one(checkout, experiment, draws, judges):
    inputs, command = chain(checkout, experiment)["phase=2/candidates/candidates.csv"]
    assert inputs == {draws, judges, "phase=1/next_prompts.csv"}
    models = {"base": "results/full/base/base=0", "phase=1/model": f"results/full/{experiment}/seed=3/phase=1/model"}
    assert f"--model {models[draws]} --judge {models[judges]} " in command


@pytest.mark.parametrize(("experiment", "draws"), [("c_sft_random", True), ("c_sft_steps", False)])
def test_a_control_follows_the_run_that_it_is_a_control_of(checkout, experiment, draws):
    jobs, like = chain(checkout, experiment), "results/full/c_sft/seed=3"
    assert ("phase=2/candidates/candidates.csv" in jobs) == draws
    assert f"{like}/phases.csv" in jobs["training_set.csv"][0] and f"--like {like}/model" in jobs["model"][1]
    assert f"--like {like}/phase=1/model" in jobs["phase=1/model"][1]


def test_bases_from_scratch_need_no_shipped_model(checkout):
    done = run(checkout, "snakemake", "-n", "results/tiny/base/base=0/quality.csv", "--config", "base=scratch")
    assert done.returncode == 0
    assert "base_models/" not in done.stdout
    assert '"source": "scratch"' in done.stdout


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("preset=huge", "There is no preset 'huge'; choose one of: "),
        ("base=released", "There is no base_model 'released'; choose one of: scratch, shipped."),
        ("presets=tiny", "--config knows preset, base and overrides, but not presets."),
        ('overrides=["seeds=[0,x]"]', "seeds: 'x' is not an integer; write a whole number such as 1."),
        ('overrides=["post_training.betta=1"]', "The override 'post_training.betta=1' has no place: "),
    ],
)
def test_a_wrong_setting_is_one_sentence_at_planning_time(checkout, setting, sentence):
    done = run(checkout, "snakemake", "-n", "--config", setting)
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1].startswith(sentence)
    assert "Traceback" not in done.stdout and "File " not in done.stdout


def test_a_missing_value_is_one_sentence_at_planning_time_and_stops_only_its_experiment(checkout):
    with edited(checkout / "configs/post_training/dpo.yaml", "beta: 0.1", "beta: ???"):
        done = run(checkout, "snakemake", "-n", *SMOKE)
        assert done.returncode == 1
        assert done.stdout.splitlines()[-1] == (
            "The configuration has no value for 'post_training.beta': it is ??? and must be set."
        )
        assert planned(checkout, "sft", *SMOKE)["post_training sft"] == 2


def test_a_misspelt_claim_is_one_sentence_at_planning_time(checkout):
    with edited(checkout / "configs/claims.yaml", "statistic: win_rate", "statistic: winrate"):
        done = run(checkout, "snakemake", "-n", *SMOKE)
    assert done.returncode == 1
    sentence = (
        "claims.yaml: the claim 'sft_improves_understanding_win_rate' has the unknown statistic 'winrate'; choose "
    )
    assert done.stdout.splitlines()[-1].startswith(sentence)
    assert "Traceback" not in done.stdout


@pytest.mark.slow
@pytest.mark.xdist_group("smoke")
class TestSmoke:
    """What a finished run of the smoke preset must satisfy, and what edits to it would rerun."""

    def test_rerun_has_nothing_to_do(self, smoke):
        done = run(smoke, "snakemake", "--cores", "2", *SMOKE)
        assert done.returncode == 0
        assert "Nothing to be done" in done.stdout

    def test_every_figure_and_table_is_there(self, smoke):
        figures = smoke / "results/smoke/figures"
        names = ("fig2_nonunified", "fig3_weak_generation", "fig4_gains", "fig5_win_rate", "samples")
        for name in (*names, "co_degradation", "curriculum", "simulation"):
            assert all((figures / f"{name}.{kind}").stat().st_size for kind in ("pdf", "png", "csv"))
        for name in ("claims", "tab1_main", "tab_base_model", "tab_curriculum"):
            assert all((figures / f"{name}.{kind}").stat().st_size for kind in ("tex", "md", "csv"))

    def test_metrics_have_the_contract_columns(self, smoke):
        columns = "preset,experiment,model,method,seed,subtask,metric,value,n"
        files = sorted((smoke / "results/smoke").glob("*/seed=*/evaluation/metrics.csv"))
        assert len(files) == 2 * (1 + len(TRAINED) + len(ARMS))
        for file in files:
            header, first = file.read_text().splitlines()[:2]
            assert header == columns
            assert first.split(",")[:2] == ["smoke", file.parts[-4]]
            assert first.split(",")[4] == file.parts[-3].removeprefix("seed=")

    def test_two_runs_give_identical_csvs(self, smoke, tmp_path):
        again = copy_repository(tmp_path)
        done = run(again, "snakemake", "--cores", "2", *SMOKE)
        assert done.returncode == 0, done.stdout[-5000:]
        files = sorted(path.relative_to(smoke) for path in (smoke / "results/smoke").rglob("*.csv"))
        assert len(files) > 40
        different = [str(file) for file in files if (smoke / file).read_bytes() != (again / file).read_bytes()]
        assert different == []

    def test_a_dpo_setting_reruns_dpo_and_what_shows_it(self, smoke):
        expected = Counter({"post_training dpo": 2, "evaluation dpo": 2})
        expected += AFTER_TRAINING
        with edited(smoke / "configs/post_training/dpo.yaml", "beta: 0.1", "beta: 0.2"):
            assert planned(smoke, *SMOKE) == expected
            assert planned(smoke, "sft", *SMOKE) == Counter()
            figure = planned(smoke, "results/smoke/figures/fig4_gains.pdf", *SMOKE)
            assert figure == Counter({"post_training dpo": 2, "evaluation dpo": 2}) + shown("fig4_gains")
        assert planned(smoke, *SMOKE, 'overrides=["post_training.beta=0.2"]') == expected

    def test_an_evaluation_setting_trains_nothing(self, smoke):
        with edited(
            smoke / "configs/experiment.yaml", "images_per_prompt: 1  # paper 1.4", "images_per_prompt: 2  # paper 1.4"
        ):
            jobs = Counter({f"evaluation {experiment}": 2 for experiment in TRAINED + ARMS})
            assert planned(smoke, *SMOKE) == jobs + AFTER_TRAINING

    @pytest.mark.parametrize(
        ("old", "new", "first"),
        [
            (
                "images_per_prompt: 1  # assumption: the paper's",
                "images_per_prompt: 2  # assumption: the paper's",
                "set",
            ),
            ("images_from: current", "images_from: pretrained", "candidates"),
        ],
    )
    def test_a_curriculum_setting_reruns_what_is_after_it(self, smoke, old, new, first):
        late = [f"{rule} c_sft" for rule in ("phase_candidates", "last_phase_set", "last_phase_training", "evaluation")]
        expected = dict.fromkeys(late, 2) | (
            dict.fromkeys(["phase_set c_sft", "phase_training c_sft"], 2) if first == "set" else {}
        )
        with edited(smoke / "configs/experiment.yaml", old, new):
            jobs = planned(smoke, *SMOKE)
        assert {job: count for job, count in jobs.items() if job.endswith(" c_sft")} == expected
        assert jobs["figure curriculum"] == jobs["table tab_curriculum"] == 1
        assert first == "set" or sum(jobs.values()) == 2 * len(late) + 2

    def test_controls_take_as_many_samples_and_steps_as_the_replay(self, smoke, tmp_path):
        """The counts that the trainers wrote, of every phase; the stations themselves fail when they differ."""
        folder = shutil.copytree(smoke, tmp_path / "smoke")
        models = [
            f"results/smoke/c_sft_{control}/seed={seed}/model" for control in ("random", "steps") for seed in (0, 1)
        ]
        done = run(folder, "snakemake", "--cores", "2", *models, *SMOKE)
        assert done.returncode == 0, done.stdout[-3000:]
        for seed in (0, 1):
            added = {}
            for arm in ("c_sft", "c_sft_random", "c_sft_steps"):
                run_folder = folder / f"results/smoke/{arm}/seed={seed}"
                added[arm] = pd.read_csv(run_folder / "phases.csv")["samples_added"].tolist()
                counts = [pd.read_csv(run_folder / part / "model/training_counts.csv") for part in ("phase=1", ".")]
                logs = [pd.read_csv(run_folder / part / "model/training_log.csv") for part in ("phase=1", ".")]
                sets = [len(pd.read_csv(run_folder / part / "training_set.csv")) for part in ("phase=1", ".")]
                assert [count["samples"].item() for count in counts] == sets
                assert [count["steps"].item() for count in counts] == [log["step"].max() for log in logs]
                assert [log["epoch"].max() for log in logs] == [1, 2]
                added[arm] += [tuple(count.iloc[0]) for count in counts]
            assert added["c_sft"] == added["c_sft_random"] == added["c_sft_steps"]

    def test_a_claim_reruns_the_claims_alone_and_gets_no_verdict(self, smoke):
        results = smoke / "results/smoke"
        before = (results / "claims.csv").read_bytes()
        assert (
            b"dpo_improves_generation" in before
            and b"dpo_improves_generation" not in (results / "claims_not_judged.csv").read_bytes()
        )
        with edited(smoke / "configs/claims.yaml", "Self-improvement by DPO raises", "DPO raises"):
            assert planned(smoke, *SMOKE) == JUDGED
            assert run(smoke, "snakemake", "--cores", "2", *SMOKE).returncode == 0
            rest = (results / "claims_not_judged.csv").read_text()
            assert (
                "dpo_improves_generation,DPO raises the share of right images.,registered after these results" in rest
            )
            assert b"dpo_improves_generation" not in (results / "claims.csv").read_bytes()
        assert run(smoke, "snakemake", "--cores", "2", *SMOKE).returncode == 0
        assert (results / "claims.csv").read_bytes() == before

    def test_a_caption_rewrites_one_table(self, smoke):
        with edited(smoke / "configs/paper.yaml", "The base models before any experiment", "The base models"):
            assert planned(smoke, *SMOKE) == shown("tab_base_model")

    def test_another_seed_adds_its_runs(self, smoke):
        expected = Counter(
            {f"{rule} {experiment}": 1 for experiment in TRAINED for rule in ("supervision", "post_training")}
        )
        expected += Counter({f"evaluation {experiment}": 1 for experiment in TRAINED})
        expected += Counter({f"quality_check {experiment}": 1 for experiment in CHECKED})
        expected += Counter(["baseline_evaluation", "candidates"]) + curriculum(ARMS, 1)
        expected += shown("fig2_nonunified", "fig3_weak_generation", "fig4_gains", "fig5_win_rate", "tab1_main")
        expected += shown("co_degradation", "curriculum", "tab_curriculum") + JUDGED
        with edited(smoke / "configs/preset/smoke.yaml", "seeds: [0, 1]", "seeds: [0, 1, 2]"):
            assert planned(smoke, *SMOKE) == expected

    @pytest.mark.parametrize("name", ["figures/fig2_nonunified", "figures/samples", "tables/tab1_main"])
    def test_editing_a_figure_or_table_redraws_it_alone(self, smoke, name):
        with edited(smoke / f"replication/{name}.py", '"""', '# edited\n"""'):
            assert planned(smoke, *SMOKE) == shown(Path(name).name)

    def test_another_corruption_reruns_its_arm_alone(self, smoke):
        expected = Counter({f"{rule} sft_shuffled": 2 for rule in ("supervision", "quality_check")})
        expected += Counter({f"{rule} sft_shuffled": 2 for rule in ("post_training", "evaluation")})
        with edited(smoke / "configs/experiment/sft_shuffled.yaml", "shuffled_prompts", "swapped"):
            assert planned(smoke, *SMOKE) == expected + shown("co_degradation")

    def test_the_quality_check_comes_before_training(self, smoke):
        with edited(smoke / "replication/quality_check.py", '"""', '# edited\n"""'):
            assert planned(smoke, *SMOKE) == Counter({f"quality_check {name}": 2 for name in CHECKED}) + shown(
                "co_degradation"
            )

    def test_editing_post_training_retrains_everything_trained(self, smoke):
        jobs = {f"{rule} {experiment}": 2 for experiment in TRAINED for rule in ("post_training", "evaluation")}
        with edited(smoke / "replication/post_training.py", '"""', '# edited\n"""'):
            arms = curriculum(ARMS, 2) - Counter({f"phase_set {arm}": 2 for arm in ARMS})
            assert planned(smoke, *SMOKE) == Counter(jobs) + arms + AFTER_TRAINING

    @pytest.mark.parametrize(
        ("file", "old", "new"),
        [
            ("configs/post_training/dpo.yaml", "beta: 0.1", "# a comment\nbeta: 1.0e-1"),
            ("replication/files.py", '"""', '# edited\n"""'),
        ],
    )
    def test_what_changes_no_number_reruns_nothing(self, smoke, file, old, new):
        with edited(smoke / file, old, new):
            assert planned(smoke, *SMOKE) == Counter()

    def test_other_presets_have_their_own_results(self, smoke):
        assert sum(planned(smoke).values()) == 68
        assert planned(smoke, *SMOKE) == Counter()

    def test_one_flipped_byte_of_a_base_model_is_one_sentence(self, smoke):
        path = smoke / "base_models/embedded_janus/base=0/model.safetensors"
        healthy = path.read_bytes()
        path.write_bytes(healthy[:-1] + bytes([healthy[-1] ^ 1]))
        config = '{"name": "embedded_janus", "source": "shipped"}'
        arguments = ["--config", config, "--base", "0", "--output", "results/broken"]
        done = run(smoke, "python", "-m", "replication.base_model", *arguments)
        path.write_bytes(healthy)
        assert done.returncode != 0
        assert done.stdout.count("\n") == 1 and "base=0/model.safetensors is missing or damaged" in done.stdout
        assert not (smoke / "results/broken").exists()

    def test_base_models_written_anew_with_the_same_bytes_rerun_nothing(self, smoke):
        for path in (smoke / "base_models").rglob("*.*"):
            path.touch()
        assert planned(smoke, *SMOKE) == Counter()
