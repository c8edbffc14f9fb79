"""Jobs forked from loaded libraries are what `python -m` would be. That they write the same bytes, the smoke run tells: it is made
by them, and compared with jobs that are not: all of it in TestSmoke, or a third of it in test_slurm.py, where a SLURM runs."""

import json
import os
import signal
import subprocess
import sys

import psutil
import pytest
from test_slurm import until
from test_workflow import BIN, ROOT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")

STATION = """
import json, os, sys
loaded = "torch" in sys.modules
import numpy, torch
what = dict(loaded=loaded, words=sys.argv[1:], folder=os.getcwd(), named=os.environ.get("NAMED"), name=__name__,
            file=sys.argv[0], threads=torch.get_num_threads(), random=[torch.rand(1).item(), numpy.random.rand()], cuda=torch.cuda.is_initialized())
print(json.dumps(what))
sys.exit({"none": None, "three": 3, "words": "what is wrong"}[sys.argv[1]])
"""
SLOW = """
import os, time
open("slow.pid", "w").write(str(os.getpid()))
time.sleep(600)
"""
DONE = """
for end in none three words; do python -m replication.station $end "a  b" > $end.out 2> $end.err; echo $? > $end.code; done
python -m replication.nowhere 2> nowhere.err; echo $? > nowhere.code
OMP_NUM_THREADS=2 python -m replication.station none > threads.out
python -c 'print("torch" in __import__("sys").modules)' > plain.out
python -m replication.slow &
while [ ! -s slow.pid ]; do sleep 0.1; done
echo $! > waiting.pid
wait
exit 7
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A folder in which stations were run beneath the command; the last one was left waiting for, and was killed."""
    folder = tmp_path_factory.mktemp("done")
    (folder / "replication").mkdir()
    for name, text in (("__init__", ""), ("station", STATION), ("slow", SLOW)):
        (folder / f"replication/{name}.py").write_text(text)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NAMED": "a\nb", "PYTHONPATH": str(ROOT)}
    command = [BIN / "python", "-m", "replication.preloaded", "bash", "-c", f"cd {folder}\n{DONE}"]
    started = subprocess.Popen(command, cwd=ROOT, env=environment)
    waiting = folder / "waiting.pid"
    until(lambda: waiting.exists() and waiting.stat().st_size)
    (folder / "family.pids").write_text(
        " ".join(str(child.pid) for child in psutil.Process(started.pid).children(True))
    )
    os.kill(int(waiting.read_text()), signal.SIGKILL)
    (folder / "command.code").write_text(str(started.wait()))
    return folder


class TestJobs:
    """What one run left; a class, so that one process of pytest makes it."""

    def test_a_station_is_what_python_makes_of_it(self, done):
        forked, plain = (json.loads((done / f"{name}.out").read_text()) for name in ("none", "threads"))
        assert forked.pop("loaded") and not plain.pop("loaded")  # another number of threads is not forked
        assert forked.pop("threads") == 1 and plain.pop("threads") > 1
        assert forked.pop("words") == ["none", "a  b"] and plain.pop("words") == ["none"]
        assert forked.pop("random") != plain.pop("random")
        assert forked == plain
        assert forked["folder"] == str(done) and forked["file"] == str(done / "replication/station.py")
        assert (forked["named"], forked["name"], forked["cuda"]) == ("a\nb", "__main__", False)

    def test_what_nobody_seeds_differs_between_jobs(self, done):
        drawn = [json.loads((done / f"{name}.out").read_text())["random"] for name in ("none", "three", "words")]
        assert len({tuple(numbers) for numbers in drawn}) == 3

    def test_exit_status_and_words_come_back(self, done):
        codes = {name: (done / f"{name}.code").read_text().strip() for name in ("none", "three", "words", "nowhere")}
        assert codes == {"none": "0", "three": "3", "words": "1", "nowhere": "1"}
        assert (done / "words.err").read_text() == "what is wrong\n"
        assert "No module named replication.nowhere" in (done / "nowhere.err").read_text()
        assert (done / "command.code").read_text() == "7"

    def test_what_is_no_station_is_run_by_python_itself(self, done):
        assert (done / "plain.out").read_text() == "False\n"

    def test_a_job_ends_with_what_waits_for_it_and_the_server_with_the_command(self, done):
        pids = [int((done / "slow.pid").read_text()), *map(int, (done / "family.pids").read_text().split())]
        assert len(pids) >= 4  # the job, the server, bash and what waited
        left = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
        assert not psutil.wait_procs(left, timeout=10)[1]


def test_no_command_is_its_description():
    said = subprocess.run([BIN / "python", "-m", "replication.preloaded"], capture_output=True, text=True, check=False)
    assert said.returncode == 1 and "snakemake --cores all paper_figures" in said.stderr


def test_a_command_that_is_not_there_is_one_sentence():
    command = [BIN / "python", "-m", "replication.preloaded", "snakmake"]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert said.returncode == 1 and said.stderr.startswith("There is no command 'snakmake'; ")


def test_a_job_does_not_wait_for_a_server_that_fails(tmp_path):
    (tmp_path / "seaborn.py").write_text("raise ImportError('broken')")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    command = [BIN / "python", "-m", "replication.preloaded", "python", "-m", "replication.supervision", "--help"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode and "broken" in done.stderr


def test_the_server_ends_with_a_command_that_is_killed():
    command = subprocess.Popen([BIN / "python", "-m", "replication.preloaded", "sleep", "600"], cwd=ROOT)
    try:
        server, sleep = until(lambda: (found := psutil.Process(command.pid).children())[1:] and found)
    finally:
        command.kill()
    assert "server.py" in " ".join(server.cmdline())
    assert psutil.wait_procs([server], timeout=120)[0] == [server]  # it may be loading
    sleep.kill()
