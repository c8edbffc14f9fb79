"""Start again after a kill: `python -m replication.restart -- ARGUMENTS OF SNAKEMAKE`.

Jobs outlive a Snakemake that is killed, and one that is started at once submits them a second time: two jobs then write the same
file. So what is left is cancelled, or awaited, before the working directory is unlocked and Snakemake starts.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import time
from itertools import pairwise
from pathlib import Path

import psutil


def jobname_prefix():
    """What the names of SLURM jobs of this working directory, and of no other, begin with."""
    return f"replication-{hashlib.sha256(os.getcwd().encode()).hexdigest()[:10]}"


def queued_jobs():
    """Ids of this user's SLURM jobs of this working directory that have not ended; none where there is no SLURM.

    Raises SystemExit with one sentence when the scheduler does not answer.
    """
    if not shutil.which("squeue"):
        return []
    done = subprocess.run(
        ["squeue", "--noheader", "--me", "--format=%A %j"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"squeue does not answer, so jobs that are left cannot be seen: {done.stderr.strip()}")
    jobs = [line.split(maxsplit=1) for line in done.stdout.splitlines()]
    return [job for job, name in jobs if name.startswith(f"{jobname_prefix()}_")]


def processes_here():
    """(process, words of its command) of this host's processes in this working directory, but this one."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.cwd() == os.getcwd():
                found.append((process, process.cmdline()))
        except psutil.Error:  # ended meanwhile, or another user's
            continue
    return found


def drivers():
    """Snakemakes that schedule jobs here. Those inside of jobs are told which one to run."""
    return [
        process
        for process, words in processes_here()
        if any(Path(word).name == "snakemake" for word in words[:3]) and "--target-jobs" not in words
    ]


def stations():
    """Processes here that run a station of this package."""
    return [
        process
        for process, words in processes_here()
        if any(flag == "-m" and module.startswith("replication.") for flag, module in pairwise(words))
        and "replication.preloaded" not in words
    ]


def end_what_is_left(wait):
    """Cancel the jobs of this working directory, in SLURM and on this host, or `wait` for them; return when none is left."""
    jobs, processes = queued_jobs(), stations()
    print(f"Left of the run before: {len(jobs)} SLURM jobs, {len(processes)} processes on this host.", flush=True)
    if jobs and not wait:
        subprocess.run(["scancel", *jobs], check=True)
    for process in processes:
        if not wait and process.is_running():
            process.terminate()
    while queued_jobs() or stations():
        time.sleep(1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wait", action="store_true", help="let jobs that are left finish, instead of cancelling them")
    parser.add_argument("arguments", nargs="*", help="of snakemake, after --")
    chosen = parser.parse_args()
    if running := drivers():
        raise SystemExit(f"Snakemake still runs here (process {running[0].pid}); stop it before you start another.")
    end_what_is_left(chosen.wait)
    subprocess.run(["snakemake", "--unlock"], check=True)
    os.execvp("snakemake", ["snakemake", *chosen.arguments])


if __name__ == "__main__":
    main()
