"""The workflow as a user meets it: it plans, it runs, and it reruns what an edit can change and nothing else."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from zipfile import ZipFile

import pandas as pd
import pytest

from replication.claim_registry import load_claims, station_of
from replication.config import load_paper

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
SMOKE = ["--config", "preset=smoke"]
TRAINED = ("sft", "sft_accept_all", "dpo", "sft_shuffled")  # the last is the poor supervision of smoke
CHECKED = ("sft", "dpo", "sft_shuffled")
MORE_ARMS = ("sft_swapped", "sft_flipped_50", "sft_shuffled", "dpo_swapped")  # of tiny
ARMS = ("c_sft",)  # of the curriculum in smoke
STARTS_AS_C_SFT = ("c_sft_random", "c_sft_steps", "c_sft_generation_only", "c_sft_understanding_only")
PHASES = (
    "phase_set",
    "phase_training",
    "phase_candidates",
    "last_phase_set",
    "last_phase_training",
)  # of two-phase runs


# Before a command of many jobs.
PRELOADED = ("python", "-m", "replication.preloaded") if sys.platform == "linux" else ()


def run(folder, *command, timeout=None):
    """Run one of the environment's commands in `folder`; output and errors come back together."""
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    environment.pop("PYTHONPATH", None)
    text = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.run(
        [BIN / command[0], *command[1:]], cwd=folder, env=environment, check=False, timeout=timeout, **text
    )


def copy_repository(folder):
    """The files of the checkout without its results, as a clone would have them."""
    listed = subprocess.check_output(["git", "ls-files", "-z", "-co", "--exclude-standard"], cwd=ROOT, text=True)
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file() and not name.startswith("paper_figures/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def copy_for_smoke(folder):
    """A copy in which preset smoke draws in batches of 128, so that its 216 candidates are two of them, one for each shard."""
    preset = copy_repository(folder) / "configs/preset/smoke.yaml"
    preset.write_text(preset.read_text().replace("batch_size: 320", "batch_size: 128"))
    return folder


def dry_run(folder, *arguments):
    """What `snakemake -n` prints."""
    done = run(folder, "snakemake", "-n", *arguments)
    assert done.returncode == 0, done.stdout
    return done.stdout


def jobs_of(text):
    """The jobs of a dry run: a Counter of 'rule what', where `what` is an experiment, a figure, a table or empty; without
    `compute` and `gallery`, which say what the jobs took and what figures show, and so come after any of them."""
    jobs = Counter()
    for block in re.split(r"^\[.*\]$", text, flags=re.MULTILINE)[1:]:
        rule = re.search(r"^\s*(?:local)?rule (\w+):", block, re.MULTILINE)
        what = re.search(r"^\s*wildcards:.*\b(?:experiment|figure|table)=(\w+)", block, re.MULTILINE)
        if rule and "output:" in block and rule[1] not in ("compute", "gallery"):
            jobs[" ".join([rule[1], *(what.groups() if what else ())])] += 1
    assert jobs or "Nothing to be done" in text, text
    return jobs


def planned(folder, *arguments):
    """The jobs that Snakemake would run (`jobs_of`)."""
    return jobs_of(dry_run(folder, *arguments))


def curriculum(arms, runs):
    """The Counter of training and evaluating each arm of the curriculum in two phases."""
    jobs = {f"{rule} {arm}": runs for arm in arms for rule in (*PHASES, "evaluation")}
    not_done = {"phase_candidates c_sft_steps", *(f"phase_training {arm}" for arm in STARTS_AS_C_SFT)}
    return Counter({job: count for job, count in jobs.items() if job not in not_done})


def shown(*names):
    """The Counter of drawing each named figure and table once."""
    return Counter(f"{'table' if name.startswith(('tab', 'claims')) else 'figure'} {name}" for name in names)


JUDGED = Counter(["claims", "table claims"])
AFTER_TRAINING = JUDGED + shown(
    "fig4_gains", "fig5_win_rate", "samples", "co_degradation", "curriculum", "tab1_main", "tab_curriculum"
)
AFTER_TRAINING += shown("sensitivity", "tab_ablations", "judges", "tab_judges")
OF_KERNEL = shown("kernel", "fig7_dynamics", "tab_kernel")


def differing(folder, other, *patterns):
    """Files that are not in both folders with the same bytes, of those that match; logs, times and shards are no results."""
    found = [(path, root) for root in (folder, other) for pattern in patterns for path in root.glob(pattern)]
    names = {path.relative_to(root) for path, root in found if path.name != "compute.csv"}
    assert len(names) > 3

    def same(name):
        return (
            (folder / name).exists()
            and (other / name).exists()
            and (folder / name).read_bytes() == (other / name).read_bytes()
        )

    return sorted(str(name) for name in names if "shard=" not in str(name) and not same(name))


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
def default_plan(checkout):
    """The dry run of plain `snakemake`."""
    return dry_run(checkout)


def test_the_plan_of_the_papers_scale(checkout):
    """Downloads, then three runs of baseline, SFT, DPO and two curricula; figures 2 to 5, samples, Tables 1, 5 and 6 and the
    claims, and nothing of the embedded world."""
    jobs = Counter({"benchmark_files": 1, "hub_model": 1, "prompts": 1, "hub_judge": 5})
    jobs += Counter({job: 3 for job in ("baseline_evaluation", "candidates")})
    stations = ("supervision", "post_training", "evaluation")
    jobs += Counter({f"{rule} {name}": 3 for rule in stations for name in ("sft", "dpo")})
    jobs += curriculum(("c_sft", "c_dpo"), runs=3) + JUDGED
    drawing = [job for job in jobs if "candidates" in job]  # in four shards each, and put together
    merged = Counter({"merge_candidates": sum(jobs[job] for job in drawing)})
    jobs += Counter({job: 3 * jobs[job] for job in drawing}) + merged
    for job in [job for job in jobs if "evaluation" in job]:  # likewise
        rule, *of = job.split()
        runs = jobs.pop(job)
        jobs += Counter({" ".join([f"{rule}_shard", *of]): 4 * runs, " ".join([f"merge_{rule}", *of]): runs})
    jobs += shown("fig2_nonunified", "fig3_weak_generation", "fig4_gains", "fig5_win_rate", "samples")
    jobs += shown("tab1_main", "tab5_t2i_compbench", "tab6_geneval")
    assert planned(checkout, "--config", "preset=paper") == jobs
    assert planned(checkout, "--config", "preset=paper", 'overrides=["choices.model=janus_pro_1b"]') == jobs
    measured = planned(checkout, "baseline", "--config", "preset=paper")
    assert measured == Counter({job: jobs[job] for job in measured})  # base models of the embedded world have a table
    assert {"figure fig2_nonunified", "merge_baseline_evaluation"} < set(measured)
    embedded = planned(checkout, "--config", "preset=smoke")
    assert (
        not {"benchmark_files", "hub_model", "hub_judge"} & set(embedded)
        and embedded["prompts"] == embedded["base_model"] - 1 == 1
    )


@pytest.fixture(scope="session")
def replays(checkout):
    """The dry run of one run of each arm of the curriculum in preset full whose chain of phases is looked at."""
    arms = ("c_sft", "c_dpo", "c_sft_several", *STARTS_AS_C_SFT, "c_sft_neither", "c_sft_n_2")
    arms += ("c_sft_n_2_random", "c_sft_n_2_steps", "c_dpo_random", "c_dpo_steps")
    models = [f"results/full/{arm}/seed=3/model" for arm in arms]
    return dry_run(checkout, *models, "--config", "preset=full")


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


def test_local_jobs_are_not_limited_per_second(tmp_path):
    """With a limit of one job per hour, Snakemake would end an hour after its only job."""
    command = ["snakemake", "--cores", "2", "--max-jobs-per-timespan", "1/1h", "--until", "prompts"]
    done = run(copy_repository(tmp_path), *command, *SMOKE, timeout=120)
    assert done.returncode == 0 and "Finished jobid" in done.stdout, done.stdout


def test_the_default_plan(default_plan):
    stations = ("supervision", "post_training", "evaluation")
    trained = ("sft", "sft_accept_all", "dpo", *MORE_ARMS)
    runs = {f"{rule} {experiment}": 5 for rule in stations for experiment in trained}
    runs |= {f"quality_check {experiment}": 5 for experiment in ("sft", "dpo", *MORE_ARMS)}
    runs |= {"prompts": 1, "base_model": 3, "baseline_evaluation": 5, "candidates": 5}
    few = ("s_n_2", "s_n_4", "loop_2")
    runs |= {f"{rule} {experiment}": 3 for rule in stations for experiment in few} | {"own_candidates loop_2": 3}
    runs |= {"evaluation s_guidance_2_baseline": 3, "evaluation s_guidance_2_sft": 3}
    drawn = shown("fig2_nonunified", "fig3_weak_generation", "tab_base_model", "closed_loop") + AFTER_TRAINING
    expected = Counter(runs) + curriculum(["c_sft", "c_dpo", *STARTS_AS_C_SFT], 5) + drawn
    assert jobs_of(default_plan) == expected
    assert re.search(r"^paper_figures +1$", default_plan, re.MULTILINE)


def judged_in(plan):
    """(experiment, seed, station) of the results that the claims of a dry run are judged on."""
    command = re.search(r"python -m replication\.claims .*", plan)[0]
    return Counter(re.findall(r"results/tiny/(\w+)/seed=(\d)/(\w+)/claims_registered\.json", command))


def test_the_default_preset_judges_every_claim_but_those_of_the_theory(default_plan, checkout):
    """The theory's need the kernel or interventions, which are by_target_only; where nothing is, all claims are judged but those
    on replay with two candidates, which only preset full runs."""
    claims = {name: claim for name, claim in load_claims().items() if not name.endswith("with_two_candidates")}
    needed = {(name, station_of(claim)) for claim in claims.values() for name in claim["needs"]}
    every = dry_run(checkout, "results/tiny/claims.csv", "--config", 'overrides=["by_target_only=[]"]')
    assert judged_in(every) == Counter((name, str(seed), station) for name, station in needed for seed in range(5))
    assert ("sft", "kernel") in needed and ("i_orthogonal", "evaluation") in needed
    usual = {(name, station) for name, station in needed if station == "evaluation" and not name.startswith("i_")}
    assert judged_in(default_plan) == Counter((name, str(s), station) for name, station in usual for s in range(5))


def test_the_dynamics_judge_the_claims_of_the_theory_on_their_own_runs(checkout):
    plan = dry_run(checkout, "results/tiny/dynamics/claims.csv")
    only = set(re.search(r"replication\.claims .* --only (.*) --output", plan)[1].split())
    arms = ("i_orthogonal", "i_orthogonal_swapped")
    claims = load_claims()
    theory = {name for name, claim in claims.items() if station_of(claim) == "kernel" or {*arms} & {*claim["needs"]}}
    assert only == theory
    needed = {(name, station_of(claims[claim])) for claim in theory for name in claims[claim]["needs"]}
    assert judged_in(plan) == Counter((name, str(seed), station) for name, station in needed for seed in range(3))


@pytest.mark.parametrize(
    ("target", "experiments", "drawn"),
    [
        ("baseline", (), ("fig2_nonunified", "fig3_weak_generation", "tab_base_model")),
        ("sft", ("sft", "sft_accept_all"), ()),
        ("dpo", ("dpo",), ()),
        ("poor_supervision", CHECKED, ("co_degradation",)),
        ("curriculum", ("sft", "dpo", "c_sft"), ("curriculum", "tab_curriculum")),
        ("sensitivity", ("sft", "sft_accept_all", "dpo"), ("sensitivity", "tab_ablations")),
        ("closed_loop", ("sft", "loop_2"), ("closed_loop",)),
        (
            "dynamics",
            ("sft", "dpo", "i_orthogonal"),
            ("simulation", "kernel", "fig7_dynamics", "interventions", "tab_kernel", "claims_dynamics"),
        ),
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


@pytest.mark.parametrize("experiment", ["baseline", "c_sft"])
@pytest.mark.parametrize(("seed", "base"), [(0, 1), (1, 4), (2, 0)])
def test_the_judge_of_a_run_is_the_next_base_model(checkout, experiment, seed, base):
    target = f"results/tiny/{experiment}/seed={seed}/evaluation/metrics.csv"
    text = run(checkout, "snakemake", "-n", target).stdout
    jobs = [block for block in re.split(r"^\[.*\]$", text, flags=re.MULTILINE) if "replication.evaluation" in block]
    assert len(jobs) == (1 if experiment == "baseline" else 2)
    for block in jobs:
        inputs = re.search(r"^    input: (.*)$", block, re.MULTILINE)[1].split(", ")
        assert f"results/tiny/base/base={base}" in inputs and f"--judge results/tiny/base/base={base} " in block


def test_one_base_model_leaves_no_second_judge(checkout):
    text = run(checkout, "snakemake", "-n", "--config", 'overrides=["bases=[0]"]').stdout
    assert "--judge  --prompts" in text and "figures.judges" not in text and "tables.tab_judges" not in text


def test_one_station_needs_what_is_before_it_only(checkout):
    assert planned(checkout, "results/tiny/candidates/seed=4/candidates.csv") == Counter(
        ["prompts", "base_model", "candidates"]
    )


def chain(text, experiment):
    """Per job of the run of one experiment in a dry run of preset full: what it writes, what it reads (below the folder of
    the run, `base` the base model) and its command."""
    run_folder = f"results/full/{experiment}/seed=3"
    jobs = {}
    for block in re.split(r"^\[.*\]$", text, flags=re.MULTILINE):
        paths = dict(re.findall(r"^    (input|output): (.*)$", block, re.MULTILINE))
        if "output" in paths and run_folder in paths["output"]:
            output = paths["output"].split(", ")[0].removeprefix(f"{run_folder}/")
            inputs = paths["input"].replace("results/full/base/base=0", "base").replace(f"{run_folder}/", "")
            command = re.search(r"python -m .*", block)[0]
            jobs[output] = {path for path in inputs.split(", ") if not path.startswith("replication/")}, command
    return jobs


def test_a_replay_is_a_chain_of_phases(replays):
    jobs = chain(replays, "c_sft_several")
    assert len(jobs) == 4 + 4 + 3  # training sets, models, candidates
    epochs = [re.search(r"--epochs (\d+) (\d+)", command) for _, command in jobs.values()]
    assert {match.groups() for match in epochs if match} == {("0", "2"), ("2", "3"), ("3", "4"), ("4", "6")}
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
        ("c_sft_generation_only", "c_sft", "base"),
        ("c_sft_understanding_only", "base", "c_sft"),
        ("c_sft_neither", "base", "base"),
    ],
)
def test_a_branch_that_is_not_strengthened_is_the_pretrained_one(replays, experiment, draws, judges):
    """Arms with one branch strengthened, or none, go on from the first phase of c_sft, as they are c_sft until the replay."""
    inputs, command = chain(replays, experiment)["phase=2/candidates/candidates.csv"]
    models = {
        "base": ("base", "results/full/base/base=0"),
        "phase=1/model": ("phase=1/model", f"results/full/{experiment}/seed=3/phase=1/model"),
        "c_sft": ("results/full/c_sft/seed=3/phase=1/model",) * 2,
    }
    assert inputs == {models[draws][0], models[judges][0], "phase=1/next_prompts.csv"}
    assert f"--model {models[draws][1]} --judge {models[judges][1]} " in command


@pytest.mark.parametrize(("kind", "draws"), [("random", True), ("steps", False)])
@pytest.mark.parametrize("replay", ["c_sft", "c_sft_n_2", "c_dpo"])
def test_a_control_follows_the_run_that_it_is_a_control_of(replays, replay, kind, draws):
    jobs, like = chain(replays, f"{replay}_{kind}"), f"results/full/{replay}/seed=3"
    assert ("phase=2/candidates/candidates.csv" in jobs) == draws
    assert f"{like}/phases.csv" in jobs["training_set.csv"][0] and f"--like {like}/model" in jobs["model"][1]
    assert f"--model {like}/phase=1/model " in jobs["model"][1] and "phase=1/model" not in jobs


def test_two_candidates_are_the_first_two_of_those_that_are_drawn_anyway(replays):
    jobs = chain(replays, "c_sft_n_2")
    first, command = jobs["phase=1/training_set.csv"]
    assert any("candidates/seed=3/candidates.csv" in path for path in first) and '"candidates_per_prompt": 2' in command
    assert '"candidates_per_prompt": 2' in jobs["phase=2/candidates/candidates.csv"][1]
    assert '"candidates_per_prompt": 10' in chain(replays, "c_sft")["phase=2/candidates/candidates.csv"][1]


def test_only_a_run_that_is_alike_so_far_starts_as_another(checkout):
    with edited(checkout / "configs/experiment/c_sft_early.yaml", "schedule:", "schedule:\n  starts_as: c_sft"):
        done = run(checkout, "snakemake", "-n", "results/full/c_sft_early/seed=3/model", "--config", "preset=full")
    assert done.returncode == 1 and "c_sft_early cannot start as c_sft: their first phases differ" in done.stdout


@pytest.fixture(scope="session")
def origins(checkout):
    """Inputs and command of the jobs of one planned run (seed 3 of full) by first output, below results/full/."""
    trained = ("s_n_16", "s_n_2", "s_beta_1", "loop_3", "loop_dpo_3", "loop_oracle_2")
    targets = [f"results/full/{name}/seed=3/model" for name in trained]
    guided = ("s_guidance_2_baseline", "s_guidance_3_sft", "s_guidance_5_cfg_dropout")
    targets += [f"results/full/{name}/seed=3/evaluation/metrics.csv" for name in (*guided, "loop_2")]
    text = run(checkout, "snakemake", "-n", *targets, "--config", "preset=full").stdout
    jobs = {}
    for block in re.split(r"^\[.*\]$", text, flags=re.MULTILINE):
        paths = dict(re.findall(r"^    (input|output): (.*)$", block, re.MULTILINE))
        if "output" in paths:
            output = paths["output"].split(", ")[0].removeprefix("results/full/")
            inputs = {path.removeprefix("results/full/") for path in paths["input"].split(", ")}
            command = re.search(r"python -m .*", block)[0]
            jobs[output] = {path for path in inputs if not path.startswith("replication/")}, command
    return jobs


@pytest.mark.parametrize(
    ("experiment", "start", "stream"),
    [
        ("loop_2", "sft/seed=3/model", "candidates-2"),
        ("loop_3", "loop_2/seed=3/model", "candidates-3"),
        ("loop_oracle_2", "sft_oracle/seed=3/model", "candidates-2"),
        ("loop_dpo_3", "loop_dpo_2/seed=3/model", "candidates-3"),
        ("s_n_16", "base/base=0", "candidates"),
    ],
)
def test_a_round_draws_from_and_trains_the_model_of_the_round_before(origins, experiment, start, stream):
    folder = f"{experiment}/seed=3"
    inputs, command = origins[f"{folder}/candidates/candidates.csv"]
    assert inputs == {start, "prompts/train.csv"}
    assert f"--model results/full/{start} " in command and f"--purpose {stream} " in command
    assert "--judge" not in command  # it judges by itself
    assert origins[f"{folder}/training_set.csv"][0] == {f"{folder}/candidates/candidates.csv"}
    inputs, command = origins[f"{folder}/model"]
    assert inputs == {start, f"{folder}/candidates/codes.npy", f"{folder}/training_set.csv"}
    assert f"--model results/full/{start} " in command
    assert "--reference" not in command  # of DPO: the model that the round starts from


def test_every_round_is_evaluated_against_the_pretrained_model(origins):
    inputs, command = origins["loop_2/seed=3/evaluation/metrics.csv"]
    assert {"loop_2/seed=3/model", "baseline/seed=3/evaluation/images.csv"} <= inputs
    assert "--model results/full/loop_2/seed=3/model " in command


def test_arms_that_draw_alike_share_the_candidates_of_a_run(origins):
    for arm in ("sft", "dpo", "sft_oracle", "s_n_2", "s_beta_1"):
        inputs, _ = origins[f"{arm}/seed=3/model"]
        assert inputs == {"base/base=0", "candidates/seed=3/codes.npy", f"{arm}/seed=3/training_set.csv"}
    assert "--purpose candidates " in origins["candidates/seed=3/candidates.csv"][1]


@pytest.mark.parametrize(
    ("experiment", "model"),
    [
        ("s_guidance_2_baseline", "base/base=0"),
        ("s_guidance_3_sft", "sft/seed=3/model"),
        ("s_guidance_5_cfg_dropout", "s_cfg_dropout_10/seed=3/model"),
    ],
)
def test_a_model_is_evaluated_again_and_not_trained_again(origins, experiment, model):
    assert [job for job in origins if job.startswith(experiment)] == [f"{experiment}/seed=3/evaluation/metrics.csv"]
    inputs, command = origins[f"{experiment}/seed=3/evaluation/metrics.csv"]
    assert model in inputs and f"--model results/full/{model} " in command


@pytest.mark.parametrize(
    ("target", "trained"),
    [
        ("sensitivity", {"sft", "sft_accept_all", "dpo", "s_n_2", "s_n_4"}),
        ("closed_loop", {"sft", "loop_2"}),
        ("dynamics", {"sft", "dpo", "sft_swapped", "i_lower", "i_upper", "i_orthogonal", "i_orthogonal_swapped"}),
    ],
)
def test_many_arms_take_few_seeds_in_tiny(checkout, target, trained):
    jobs = planned(checkout, target)
    trainings = {job.split()[1]: count for job, count in jobs.items() if job.startswith("post_training")}
    assert trainings == dict.fromkeys(trained, 3)


def test_branches_with_separate_copies_draw_by_one_model_and_judge_by_another(checkout):
    text = dry_run(checkout, "results/tiny/i_separate/seed=2/evaluation/metrics.csv")
    commands = re.findall(r"python -m replication\.evaluation .*", text)
    (separate,) = (command for command in commands if "i_separate/seed=2" in command)
    assert "--model results/tiny/sft/seed=2/model --understanding results/tiny/base/base=4 " in separate
    assert len(commands) == 2 and "post_training i_separate" not in jobs_of(text)


def test_bases_from_scratch_need_no_shipped_model(checkout):
    done = run(checkout, "snakemake", "-n", "results/tiny/base/base=0/quality.csv", "--config", "base=scratch")
    assert done.returncode == 0
    assert "base_models/" not in done.stdout
    assert '"source": "scratch"' in done.stdout
    assert "replication/models/tiny.py" in done.stdout and "emu3" not in done.stdout


@pytest.mark.parametrize(
    ("name", "class_name"),
    [("emu3", "replication.models.emu3.Emu3Model"), ("showo", "replication.models.showo.ShowoModel")],
)
def test_a_family_is_chosen_by_configuration_alone(checkout, name, class_name):
    """Its base models are pre-trained by the same rules, and every station reads its class."""
    target = f"results/smoke/family=embedded_{name}/sft/seed=0/evaluation/metrics.csv"
    text = dry_run(checkout, target, *SMOKE, "base=scratch", f"family=embedded_{name}")
    (pretraining,) = {config for config in re.findall(r"replication\.base_model --config '(.*?)'", text)}
    assert json.loads(pretraining)["pretraining"]["untrained"] == f"replication.models.tiny_{name}.new_unified"
    for station in ("candidates", "post_training", "evaluation"):
        command = re.search(rf"python -m replication\.{station} --config '(.*?)'", text)
        assert json.loads(command[1])["model"]["class"] == class_name
    for rule in ("base_model", "candidates", "post_training"):
        block = text[text.index(f"rule {rule}:") :]
        assert f"replication/models/{name}.py" in re.search(r"input: (.*)", block)[1].split(", ")


@pytest.fixture(scope="session")
def with_emu3(tmp_path_factory):
    """A copy with files in the place of four base models of embedded_emu3, and no other family's, for plans only."""
    folder = copy_repository(tmp_path_factory.mktemp("with_emu3"))
    for family in (folder / "base_models").glob("embedded_*"):
        if family.name != "embedded_janus":
            shutil.rmtree(family)
    for number in (11, 2, 5, 7):
        base = folder / f"base_models/embedded_emu3/base={number}"
        base.mkdir(parents=True, exist_ok=True)
        for name in ("model.safetensors", "quality.csv", "../SHA256SUMS"):
            (base / name).write_text("in its place\n")
    return folder


def commands_of(text):
    """The commands of a dry run, without a family's folder, its number of a base model and what its model says of itself."""
    own = r'/family=embedded_emu3|(?<=base[= ])\d+|"(?:base_models|name|class)": "\S+|"image_area": \S+ |"lacks": \[[^]]*\], '
    return sorted(re.sub(own, "", command) for command in re.findall(r"python -m replication\.\S+ .*", text))


def test_a_family_runs_the_same_commands_in_a_folder_of_its_own(with_emu3, default_plan):
    text = dry_run(with_emu3, "--config", "family=embedded_emu3")
    outputs = re.findall(r"^    output: (.*)", text, re.MULTILINE)
    own = ("results/tiny/family=embedded_emu3/", "paper_figures/family=embedded_emu3/")
    assert outputs and all(file.startswith(own) for line in outputs for file in line.split(", "))
    assert jobs_of(text) == jobs_of(default_plan)
    assert commands_of(text) == commands_of(default_plan) and "family=" not in default_plan
    taken = {int(number) for number in re.findall(r"base_models/embedded_emu3/base=(\d+)/model", text)}
    assert taken == {2, 5, 7}  # the first of its own, as many as tiny has


def test_families_side_by_side_run_the_same_arms_and_the_presets_own_the_dial(with_emu3):
    text = dry_run(with_emu3, "families")
    jobs = jobs_of(text)
    trained, stations = ("sft", "dpo", "sft_swapped"), ("supervision", "post_training", "evaluation", "sharing")
    expected = Counter({f"{rule} {arm}": 3 for rule in stations for arm in trained})
    expected += Counter({"kernel sft": 3, "claims_of_family": 1, "prompts": 1}) + curriculum(["c_sft"], runs=3)
    expected += Counter(dict.fromkeys(("base_model", "baseline_evaluation", "candidates"), 3))
    module = {job: count for job, count in jobs.items() if job.startswith("embedded_emu3_")}
    assert {job.removeprefix("embedded_emu3_"): count for job, count in module.items()} == expected
    dial = [f"i_{kind}{end}" for kind in ("separate", "shared_1", "shared_2", "shared_3") for end in ("", "_swapped")]
    expected += Counter({f"evaluation {variant}": 3 for variant in dial})
    expected += Counter({f"understanding_branch {variant}": 3 for variant in dial if "shared" in variant})
    figures, tables = (
        ("fig2_nonunified", "fig3_weak_generation", "sharing"),
        ("tab1_main", "tab_sharing", "claims_families"),
    )
    expected += Counter(f"family_figure {name}" for name in figures) + Counter(
        f"family_table {name}" for name in tables
    )
    assert jobs - Counter(module) == expected
    assert text.count("Left out, as base_models holds none of theirs: embedded_janus_codes, embedded_showo.") == 1
    command = re.search(r"python -m replication\.figures\.sharing .*", text)[0]
    for place in ("results/tiny/", "results/tiny/family=embedded_emu3/"):
        for file in ("baseline/seed=1/evaluation/metrics.csv", "sft_swapped/seed=2/sharing.csv"):
            assert f" {place}{file} " in command
    assert " results/tiny/i_shared_2/seed=0/evaluation/metrics.csv " in command and "emu3/i_" not in command


def test_branches_that_share_some_layers_judge_by_trained_layers_below_pretrained_ones(with_emu3):
    text = dry_run(with_emu3, "results/tiny/i_shared_2_swapped/seed=2/evaluation/metrics.csv")
    (copies,) = re.findall(r"python -m replication\.dynamics\.copies .*", text)
    run_folder = "results/tiny/i_shared_2_swapped/seed=2"
    assert "--pretrained results/tiny/base/base=4 --trained results/tiny/sft_swapped/seed=2/model " in copies
    evaluation = re.search(rf"python -m replication\.evaluation .*{run_folder}/evaluation ", text)[0]
    assert (
        f"--model results/tiny/sft_swapped/seed=2/model --understanding {run_folder}/understanding_branch "
        in evaluation
    )


def test_the_presets_own_family_is_the_default(checkout, default_plan):
    named = dry_run(checkout, "--config", "family=embedded_janus")
    assert commands_of(named) == commands_of(default_plan)


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("preset=huge", "There is no preset 'huge'; choose one of: "),
        ("base=released", "There is no base_model 'released'; choose one of: hub, scratch, shipped."),
        ("presets=tiny", "--config knows preset, base, family and overrides, but not presets."),
        ("family=emu4", "There is no model 'emu4'; choose one of: "),
        ('overrides=["families.others=[emu4]"]', "There is no model 'emu4'; choose one of: "),
        ("family=emu3_gen", "No base model of emu3_gen comes with the repository; pre-train it with"),
        ('overrides=["seeds=[0,x]"]', "seeds: 'x' is not a whole number of 0 or more."),
        (
            'overrides=["choices.model=emu3_gen"]',
            "No base model of emu3_gen comes with the repository; pre-train",
        ),
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
        assert planned(checkout, "sft", *SMOKE)["post_training sft"] == 1


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
class TestSmoke:
    """What a finished run of the smoke preset must satisfy, and what edits to it would rerun: one after the other, as they edit one
    copy (conftest.py)."""

    def test_rerun_has_nothing_to_do(self, smoke):
        done = run(smoke, "snakemake", "--cores", "2", *SMOKE)
        assert done.returncode == 0
        assert "Nothing to be done" in done.stdout

    def test_every_figure_and_table_is_there(self, smoke):
        figures = smoke / "results/smoke/figures"
        names = ("fig2_nonunified", "fig3_weak_generation", "fig4_gains", "fig5_win_rate", "judges", "samples")
        names += ("co_degradation", "curriculum", "sensitivity", "closed_loop", "simulation", "kernel", "fig7_dynamics")
        names += ("interventions",)
        for name in names:
            assert all((figures / f"{name}.{kind}").stat().st_size for kind in ("pdf", "png", "csv"))
        for name in (
            "claims",
            "tab1_main",
            "tab_base_model",
            "tab_curriculum",
            "tab_ablations",
            "tab_judges",
            "tab_kernel",
        ):
            assert all((figures / f"{name}.{kind}").stat().st_size for kind in ("tex", "md", "csv"))

    def test_what_the_jobs_took_is_a_table_and_all_of_it_is_in_the_report(self, smoke, tmp_path):
        taken = pd.read_csv(smoke / "results/smoke/compute.csv").set_index("station")
        evaluations = list((smoke / "results/smoke").glob("*/seed=0/evaluation.benchmark.jsonl"))
        assert taken.loc["evaluation", "jobs"] == len(evaluations)
        assert taken.loc[["base_model", "candidates", "simulation"], "jobs"].ge(1).all()
        done = run(smoke, "snakemake", "--report", str(tmp_path / "report.zip"), *SMOKE)
        assert done.returncode == 0, done.stdout[-3000:]
        with ZipFile(tmp_path / "report.zip") as report:
            names = [Path(name).name for name in report.namelist()]
            text = "".join(report.read(name).decode() for name in report.namelist() if name.endswith((".html", ".js")))
        assert {path.name for path in (smoke / "results/smoke/figures").glob("*.csv")} <= set(names)
        assert {path.name for path in (smoke / "results/smoke/figures").glob("*.png")} <= set(names)
        assert "compute.csv" in names
        paper = load_paper("smoke")
        for caption in (paper["tables"]["claims"]["caption"], paper["figures"]["judges"]["caption"], paper["compute"]):
            assert " ".join(caption.split()[:5]) in text

    def test_metrics_have_the_contract_columns(self, smoke):
        columns = "preset,experiment,model,method,seed,subtask,metric,value,n,judge"
        files = sorted((smoke / "results/smoke").glob("*/seed=*/evaluation/metrics.csv"))
        assert len(files) == 1 + len(TRAINED) + len(ARMS) + 3  # a second round, a guided evaluation, an intervention
        for file in files:
            header, first = file.read_text().splitlines()[:2]
            assert header == columns
            assert first.split(",")[:2] == ["smoke", file.parts[-4]]
            assert first.split(",")[4] == file.parts[-3].removeprefix("seed=")

    def test_two_runs_give_identical_results(self, smoke_results, tmp_path):
        """The second with jobs that are not forked and candidates in two shards. Where test_slurm.py can run, which does the same
        with a third of the jobs, CI leaves this out."""
        again = copy_for_smoke(tmp_path)
        done = run(again, "snakemake", "--cores", "2", *SMOKE, 'overrides=["candidate_shards=2"]')
        assert done.returncode == 0, done.stdout[-5000:]
        assert differing(smoke_results, again / "results/smoke", "**/*.csv", "**/*.npy") == []

    def test_evaluations_in_shards_give_the_same_results(self, smoke, smoke_results, tmp_path):
        """The pre-trained model's 216 images in two batches, and verdicts on them after a training."""
        folder, evaluations = shutil.copytree(smoke, tmp_path / "smoke"), []
        for experiment in ("baseline", "dpo"):
            evaluations.append(f"results/smoke/{experiment}/seed=0/evaluation")
            shutil.rmtree(folder / evaluations[-1])
        command = ["snakemake", "--cores", "2", f"{evaluations[1]}/metrics.csv", "--rerun-triggers", "mtime"]
        done = run(folder, *PRELOADED, *command, *SMOKE, 'overrides=["evaluation_shards=2"]')
        assert done.returncode == 0, done.stdout[-3000:]
        for evaluation in evaluations:
            shards = [f"shard={part}-of-2/evaluation/images.csv" for part in (0, 1)]
            drawn = [len(pd.read_csv((folder / evaluation).parent / shard)) for shard in shards]
            assert sorted(drawn) == ([88, 128] if "baseline" in evaluation else [0, 54])
            local = smoke_results.parent / evaluation.replace("results/smoke", smoke_results.name)
            assert differing(local, folder / evaluation, "*.csv", "*.npy", "claims_registered.json") == []

    def test_figures_come_from_what_a_reference_restores_and_nothing_is_trained(self, smoke, tmp_path):
        folder = shutil.copytree(smoke, tmp_path / "smoke")
        results = folder / "results/smoke"
        for file in results.glob("*/seed=0/evaluation/provenance.json"):  # this copy is not a git checkout
            record = json.loads(file.read_text()) | {"commit": "c0ffee", "uncommitted_changes": False}
            file.write_text(json.dumps(record))
        done = run(folder, "snakemake", "--cores", "2", "reference", *SMOKE)
        assert done.returncode == 0, done.stdout
        for path in results.iterdir():
            if path.name not in ("base", "prompts", "candidates"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        assert planned(folder, "shared", *SMOKE) == Counter()
        done = run(folder, "python", "-m", "replication.restore", "--preset", "smoke")
        assert done.returncode == 0, done.stdout
        rules = {job.split()[0] for job in planned(folder, "paper_figures", "dynamics", *SMOKE)}
        assert rules == {"claims", "claims_of_theory", "figure", "simulation", "table"}
        names = ("claims.tex", "samples.pdf", "closed_loop.pdf")
        drawn = [f"results/smoke/figures/{name}" for name in names]
        done = run(folder, "snakemake", "--cores", "2", *drawn, *SMOKE)
        assert done.returncode == 0, done.stdout
        assert all((folder / file).read_bytes() == (smoke / file).read_bytes() for file in drawn)

    def test_a_dpo_setting_reruns_dpo_and_what_shows_it(self, smoke):
        expected = Counter({"post_training dpo": 1, "evaluation dpo": 1, "kernel dpo": 1})
        expected += AFTER_TRAINING + OF_KERNEL
        with edited(smoke / "configs/post_training/dpo.yaml", "beta: 0.1", "beta: 0.2"):
            assert planned(smoke, *SMOKE) == expected
            assert planned(smoke, "sft", *SMOKE) == Counter()
            figure = planned(smoke, "results/smoke/figures/fig4_gains.pdf", *SMOKE)
            assert figure == Counter({"post_training dpo": 1, "evaluation dpo": 1}) + shown("fig4_gains")
        assert planned(smoke, *SMOKE, 'overrides=["post_training.beta=0.2"]') == expected

    def test_an_evaluation_setting_trains_nothing(self, smoke):
        with edited(
            smoke / "configs/experiment.yaml", "images_per_prompt: 1  # paper 1.4", "images_per_prompt: 2  # paper 1.4"
        ):
            jobs = Counter({f"evaluation {experiment}": 1 for experiment in TRAINED + ARMS})
            jobs += Counter(["evaluation loop_2"]) + shown("closed_loop")  # guided evaluations have their own number
            jobs += (
                Counter(["evaluation i_orthogonal", "kernel sft", "kernel dpo"]) + shown("interventions") + OF_KERNEL
            )
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
        expected = dict.fromkeys(late, 1) | (
            dict.fromkeys(["phase_set c_sft", "phase_training c_sft"], 1) if first == "set" else {}
        )
        with edited(smoke / "configs/experiment.yaml", old, new):
            jobs = planned(smoke, *SMOKE)
        assert {job: count for job, count in jobs.items() if job.endswith(" c_sft")} == expected
        after = shown("curriculum", "tab_curriculum") + JUDGED
        assert after <= jobs and (first == "set" or jobs == Counter(expected) + after)

    def test_controls_take_as_many_samples_and_steps_as_the_replay(self, smoke, tmp_path):
        """The counts that the trainers wrote, of every phase; the stations themselves fail when they differ."""
        folder = shutil.copytree(smoke, tmp_path / "smoke")
        models = [f"results/smoke/c_sft_{control}/seed=0/model" for control in ("random", "steps")]
        done = run(folder, *PRELOADED, "snakemake", "--cores", "2", *models, *SMOKE)
        assert done.returncode == 0, done.stdout[-3000:]
        results, taken = folder / "results/smoke", {}
        for arm in ("c_sft", "c_sft_random", "c_sft_steps"):
            run_folder = results / f"{arm}/seed=0"
            trained = (results / "c_sft/seed=0/phase=1/model", run_folder / "model")  # one first phase for all three
            counts = [pd.read_csv(model / "training_counts.csv") for model in trained]
            logs = [pd.read_csv(model / "training_log.csv") for model in trained]
            sets = [pd.read_csv(run_folder / part / "training_set.csv") for part in ("phase=1", ".")]
            assert [count["samples"].item() for count in counts] == [len(rows) for rows in sets]
            assert [count["steps"].item() for count in counts] == [log["step"].max() for log in logs]
            assert [log["epoch"].max() for log in logs] == [1, 2]
            assert sets[0].equals(pd.read_csv(results / "c_sft/seed=0/phase=1/training_set.csv"))
            taken[arm] = [tuple(count.iloc[0]) for count in counts]
            taken[arm].append(pd.read_csv(run_folder / "phases.csv")["samples_added"].tolist())
        assert taken["c_sft"] == taken["c_sft_random"] == taken["c_sft_steps"]

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
        expected += Counter(f"{rule} i_orthogonal" for rule in ("supervision", "post_training", "evaluation"))
        expected += Counter(["kernel sft"])  # with the intervention, for the claims; figures have few seeds
        expected += Counter({f"quality_check {experiment}": 1 for experiment in CHECKED})
        expected += Counter(["baseline_evaluation", "candidates"]) + curriculum(ARMS, 1)
        expected += shown("fig2_nonunified", "fig3_weak_generation", "fig4_gains", "fig5_win_rate", "tab1_main")
        expected += shown("co_degradation", "curriculum", "tab_curriculum", "judges", "tab_judges") + JUDGED
        with edited(smoke / "configs/preset/smoke.yaml", "seeds: [0]", "seeds: [0, 1]"):
            assert planned(smoke, *SMOKE) == expected

    @pytest.mark.parametrize("name", ["figures/fig2_nonunified", "figures/samples", "tables/tab1_main"])
    def test_editing_a_figure_or_table_redraws_it_alone(self, smoke, name):
        with edited(smoke / f"replication/{name}.py", '"""', '# edited\n"""'):
            assert planned(smoke, *SMOKE) == shown(Path(name).name)

    def test_another_corruption_reruns_its_arm_alone(self, smoke):
        expected = Counter({f"{rule} sft_shuffled": 1 for rule in ("supervision", "quality_check")})
        expected += Counter({f"{rule} sft_shuffled": 1 for rule in ("post_training", "evaluation")})
        with edited(smoke / "configs/experiment/sft_shuffled.yaml", "shuffled_prompts", "swapped"):
            assert planned(smoke, *SMOKE) == expected + shown("co_degradation")

    def test_the_quality_check_comes_before_training(self, smoke):
        with edited(smoke / "replication/quality_check.py", '"""', '# edited\n"""'):
            assert planned(smoke, *SMOKE) == Counter({f"quality_check {name}": 1 for name in CHECKED}) + shown(
                "co_degradation"
            )

    def test_editing_post_training_retrains_everything_trained(self, smoke):
        jobs = {f"{rule} {experiment}": 1 for experiment in TRAINED for rule in ("post_training", "evaluation")}
        with edited(smoke / "replication/post_training.py", '"""', '# edited\n"""'):
            arms = curriculum(ARMS, 1) - Counter({f"phase_set {arm}": 1 for arm in ARMS})
            stations = ("own_candidates", "supervision", "post_training", "evaluation")
            loop = Counter(f"{rule} loop_2" for rule in stations) + shown("closed_loop")
            theory = Counter(["post_training i_orthogonal", "evaluation i_orthogonal", "kernel sft", "kernel dpo"])
            theory += shown("interventions") + OF_KERNEL
            assert planned(smoke, *SMOKE) == Counter(jobs) + arms + loop + theory + AFTER_TRAINING

    def test_what_changes_no_number_reruns_nothing(self, smoke):
        beta = edited(smoke / "configs/post_training/dpo.yaml", "beta: 0.1", "# a comment\nbeta: 1.0e-1")
        with beta, edited(smoke / "replication/files.py", '"""', '# edited\n"""'):
            assert planned(smoke, *SMOKE) == Counter()

    def test_other_presets_have_their_own_results(self, smoke, default_plan):
        assert planned(smoke) == jobs_of(default_plan)

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
