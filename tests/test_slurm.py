"""The workflow through a real scheduler, and what faults leave of it: `pytest -m slurm`, `pytest -m faults`.

The SLURM that runs on this machine is used, or else one of a single node is started with ../shared/slurm/start.sh.
"""

import os
import re
import shutil
import signal
import subprocess
import time

import pytest
from test_workflow import BIN, ROOT, copy_for_smoke, differing

from replication.post_training import last_checkpoint

START = ROOT.parent / "shared/slurm/start.sh"
# Polls soon, and asks for what a small model needs: the node of this test is small, too.
PROFILE = [
    "--workflow-profile",
    "profiles/slurm",
    "--slurm-init-seconds-before-status-checks",
    "3",
    "--latency-wait",
    "5",
]
# SFT, DPO, a curriculum, the kernel and the simulation, in a third of the jobs of preset smoke.
ASKED = [
    f"results/smoke/{made}"
    for made in (
        "sft/seed=0/kernel/pairs.csv",
        "c_sft/seed=0/evaluation/metrics.csv",
        "dpo/seed=0/evaluation/metrics.csv",
        "figures/simulation.pdf",
    )
]
SHARDED = '"candidates.batch_size=64","candidate_shards=2"'
WHOLE = '"candidates.batch_size=64"'
# A training of more than a minute that can be gone on with from every epoch.
LONG = '"epochs.dpo=160","post_training.checkpoint_every_minutes=0.02"'
MODEL = "results/smoke/dpo/seed=0/model"


@pytest.fixture(scope="session")
def cluster():
    """A SLURM that takes jobs, with two GPUs that need not be real, as models of preset smoke are on the CPU."""
    if shutil.which("sinfo") and subprocess.run(["sinfo"], check=False, capture_output=True).returncode == 0:
        yield
        return
    pytest.importorskip("snakemake_executor_plugin_slurm", reason="snakemake-executor-plugin-slurm is not installed.")
    if not START.exists():
        pytest.skip("No SLURM runs here, and there is no ../shared/slurm/start.sh to start one with.")
    settings = {**os.environ, "SLURM_ONE_ACCT": "none", "SLURM_ONE_GPUS": "2"}
    started = subprocess.run(["bash", START], check=False, env=settings, capture_output=True, text=True)
    if started.returncode:
        pytest.skip(f"SLURM cannot be started here: {started.stderr.strip().splitlines()[-1]}")
    yield
    subprocess.run(["bash", START.with_name("stop.sh"), "--wipe"], check=True)


def checkout(folder):
    """A copy of the repository whose profile asks for little memory, as a user would edit it."""
    profile = copy_for_smoke(folder) / "profiles/slurm/profile.v9+.yaml"
    profile.write_text(re.sub(r'mem_mb: "\d+ ', 'mem_mb: "1500 ', profile.read_text()))
    return folder


def start(folder, *command):
    """Start one of the environment's commands in `folder`, its words in `folder`/driver.log."""
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(folder)}
    log = (folder / "driver.log").open("a")
    return subprocess.Popen([BIN / command[0], *command[1:]], cwd=folder, env=environment, stdout=log, stderr=log)


def finish(folder, driver):
    assert driver.wait() == 0, (folder / "driver.log").read_text()[-5000:]


def smoke(overrides):
    return ["--config", "preset=smoke", f"overrides=[{overrides}]"]


def submitted(folder):
    """Every job of `folder` that SLURM has had so far: (id, rule and wildcards, state), in order."""
    lines = subprocess.check_output(["squeue", "--noheader", "--me", "--states=all", "--format=%A|%k|%T|%Z"], text=True)
    jobs = [line.strip().split("|") for line in lines.splitlines()]
    return sorted((int(job), rule, state) for job, rule, state, place in jobs if place == str(folder))


def until(condition):
    """The first true value of `condition()`, asked twice a second for up to five minutes."""
    for _ in range(600):
        if found := condition():
            return found
        time.sleep(0.5)
    raise AssertionError("nothing happened in five minutes")


def running(folder, rule):
    """Id of the job of `rule` once it has written a checkpoint."""
    jobs = [job for job, name, state in submitted(folder) if rule in name and state == "RUNNING"]
    written = any(map(last_checkpoint, folder.glob("results/smoke/dpo/seed=0/model.progress/*")))
    return jobs[0] if jobs and written else None


@pytest.mark.slurm
def test_a_run_through_slurm_has_the_results_of_a_local_run(cluster, tmp_path, request):
    """Every job that is not a matter of seconds goes through sbatch, candidates in two shards."""
    scheduled = checkout(tmp_path)
    finish(scheduled, start(scheduled, "snakemake", *ASKED, *PROFILE, *smoke('"candidate_shards=2"')))
    # Of the driver's own words, as squeue forgets jobs that ended more than ten minutes ago.
    text = (scheduled / "driver.log").read_text()
    jobs = re.findall(r"has been submitted with SLURM jobid \d+ \(log: .*/rule_(\w+)(\S*)/\d+\.log\)", text)
    rules = {rule for rule, _ in jobs}
    assert rules >= {
        "base_model",
        "candidates",
        "phase_candidates",
        "baseline_evaluation",
        "evaluation",
        "post_training",
        "simulation",
        "kernel",
    }
    assert not rules & {"prompts", "supervision", "phase_set", "last_phase_set", "merge_candidates", "claims", "figure"}
    assert len(jobs) == len(set(jobs))  # none twice
    local = request.getfixturevalue("smoke_results")  # not before: another process may be making them meanwhile
    results = scheduled / "results/smoke"
    differ = differing(local, results, "**/*.csv", "**/*.npy")
    assert [name for name in differ if (results / name).exists()] == []  # the rest was not asked for


RESULTS = ("results/smoke/candidates/seed=0/*.*", "results/smoke/dpo/seed=0/*.csv", f"{MODEL}/*")


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    """A local run of DPO's training that nothing happens to."""
    folder = checkout(tmp_path_factory.mktemp("undisturbed"))
    finish(folder, start(folder, "snakemake", "--cores", "1", MODEL, *smoke(f"{WHOLE},{LONG}")))
    return folder


@pytest.fixture
def disturbed(cluster, tmp_path):
    """A copy of the repository, and a function that starts the same run through SLURM."""
    folder = checkout(tmp_path)

    def run(*more):
        return start(folder, "snakemake", MODEL, *PROFILE, *more, *smoke(f"{SHARDED},{LONG}"))

    return folder, run


def attempts(folder, rule):
    return [state for _, name, state in submitted(folder) if rule in name]


@pytest.mark.faults
def test_a_cancelled_job_is_tried_again_and_goes_on(undisturbed, disturbed):
    folder, run = disturbed
    driver = run()
    job = until(lambda: running(folder, "post_training"))
    subprocess.run(["scancel", str(job)], check=True)
    finish(folder, driver)
    assert attempts(folder, "post_training") == ["CANCELLED", "COMPLETED"]
    assert differing(folder, undisturbed, *RESULTS) == []


@pytest.mark.faults
def test_a_preempted_job_waits_in_slurm_and_goes_on(undisturbed, disturbed):
    """It keeps its id; `scontrol requeue` stands for a preemption, which takes a second partition."""
    folder, run = disturbed
    driver = run()
    job = until(lambda: running(folder, "post_training"))
    subprocess.run(["scontrol", "requeue", str(job)], check=True)
    finish(folder, driver)
    assert attempts(folder, "post_training") == ["COMPLETED"]
    shown = subprocess.check_output(["scontrol", "show", "job", str(job)], text=True)
    assert "Requeue=1 Restarts=1" in shown
    assert differing(folder, undisturbed, *RESULTS) == []


@pytest.mark.faults
def test_a_job_over_its_time_goes_on_with_more(undisturbed, disturbed):
    folder, run = disturbed
    finish(folder, run("--set-resources", "post_training:runtime=1 * attempt * attempt", "post_training:mem_mb=1500"))
    assert attempts(folder, "post_training")[0] == "TIMEOUT" and attempts(folder, "post_training")[-1] == "COMPLETED"
    assert differing(folder, undisturbed, *RESULTS) == []


@pytest.mark.faults
def test_a_job_over_its_memory_is_tried_again_with_more(undisturbed, disturbed):
    folder, run = disturbed
    finish(folder, run("--set-resources", "post_training:mem_mb=500 * attempt * attempt", "post_training:runtime=10"))
    assert attempts(folder, "post_training")[0] in ("FAILED", "OUT_OF_MEMORY")
    assert attempts(folder, "post_training")[-1] == "COMPLETED"
    assert differing(folder, undisturbed, *RESULTS) == []


@pytest.mark.faults
@pytest.mark.parametrize("wait", [(), ("--wait",)], ids=["cancelled", "awaited"])
def test_a_killed_driver_is_started_again(undisturbed, disturbed, wait):
    folder, run = disturbed
    driver = run()
    until(lambda: running(folder, "post_training"))
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    again = ["python", "-m", "replication.restart", *wait, "--", MODEL, *PROFILE, *smoke(f"{SHARDED},{LONG}")]
    finish(folder, start(folder, *again))
    assert attempts(folder, "post_training") == (["COMPLETED"] if wait else ["CANCELLED", "COMPLETED"])
    assert attempts(folder, "rule_candidates") == ["COMPLETED"] * 2
    assert differing(folder, undisturbed, *RESULTS) == []
