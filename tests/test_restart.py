"""A run is killed, its job lives on, and the run is started again: nothing is written by two jobs."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from test_workflow import BIN, ROOT

from replication.restart import jobname_prefix

# Adds a line with its process id ten times a second, for three seconds; its command line is that of a station.
SNAKEFILE = """
rule slow:
    output: "lines.txt"
    shell: "python lines.py -m replication.slow >> {output}"
"""
LINES = """
import os, time
for _ in range(30):
    print(os.getpid(), flush=True)
    time.sleep(0.1)
"""


@pytest.fixture
def folder(tmp_path):
    if shutil.which("squeue") and subprocess.run(["squeue"], capture_output=True, check=False).returncode:
        pytest.skip("squeue is installed here, but no SLURM answers.")
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    (tmp_path / "lines.py").write_text(LINES)
    return tmp_path


def start(folder, *command):
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "start_new_session": True}
    return subprocess.Popen(command, cwd=folder, env=environment, **pipe)


def lines(folder):
    return (folder / "lines.txt").read_text().split() if (folder / "lines.txt").exists() else []


def restart(folder, *options):
    snakemake = ["--cores", "1", "--rerun-incomplete"]
    done = start(folder, sys.executable, "-m", "replication.restart", *options, "--", *snakemake)
    return done.communicate()[0], done.returncode


@pytest.mark.parametrize("options", [(), ("--wait",)], ids=["cancelled", "awaited"])
def test_a_killed_run_is_started_again_with_one_writer(folder, options):
    driver = start(folder, "snakemake", "--cores", "1")
    while len(lines(folder)) < 3:
        time.sleep(0.05)
    text, status = restart(folder, *options)
    assert status != 0 and f"Snakemake still runs here (process {driver.pid})" in text
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    orphan = lines(folder)[0]
    text, status = restart(folder, *options)
    assert status == 0 and "0 SLURM jobs, 1 processes on this host" in text, text
    assert len(lines(folder)) == 30 and len(set(lines(folder))) == 1 and lines(folder)[0] != orphan


def test_the_prefix_is_of_one_folder(tmp_path, monkeypatch):
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    mine = jobname_prefix()
    assert mine == jobname_prefix() and len(mine) <= 50  # the most that the SLURM plugin takes
    monkeypatch.chdir(tmp_path / "other")
    assert jobname_prefix() != mine
