"""Start again after a kill: first no job of the run that was killed may be left, or two of them write one file."""

import argparse
import hashlib
import os
import shutil
import subprocess
import time
from pathlib import Path

import psutil


def jobname_prefix():
    """What the names of SLURM jobs of this working directory, and of no other, begin with."""
    return f"replication-{hashlib.sha256(os.getcwd().encode()).hexdigest()[:10]}"


def queued_jobs():
    """Ids of this user's SLURM jobs that were submitted from this working directory; none where there is no SLURM."""
    if not shutil.which("squeue"):
        return []
    # Without a list of states, squeue also shows jobs that still clean up, but none that have ended.
    lines = subprocess.check_output(["squeue", "--noheader", "--me", "--format=%A %j"], text=True).splitlines()
    return [line.split()[0] for line in lines if line.split()[1].startswith(f"{jobname_prefix()}_")]


def local_processes(*words):
    """Processes of this host in this working directory whose command line has all `words`; not this one."""
    found = []
    for process in psutil.process_iter():
        try:
            command = " ".join(process.cmdline())
            if process.cwd() == os.getcwd() and all(word in command for word in words) and process.pid != os.getpid():
                found.append((process, command))
        except psutil.Error:  # ended meanwhile, or another user's
            continue
    return found


def running_drivers():
    """Process ids of the Snakemakes that schedule jobs here; those inside jobs have a target job of their own."""
    return [process.pid for process, command in local_processes("bin/snakemake") if "--target-jobs" not in command]


def end_orphans(wait):
    """Cancel, or with `wait` let finish, the SLURM jobs and local jobs of this working directory; return when all are gone."""
    jobs = queued_jobs()
    stations = [process for process, _ in local_processes("-m replication.")]
    print(f"{len(jobs)} SLURM jobs and {len(stations)} local jobs are left of the run before.", flush=True)
    if jobs and not wait:
        subprocess.run(["scancel", *jobs], check=True)
    for process in stations:
        if not wait:
            process.terminate()
    while queued_jobs() or local_processes("-m replication."):
        time.sleep(1)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wait", action="store_true", help="let orphaned jobs finish, instead of cancelling them")
    parser.add_argument("snakemake", nargs=argparse.REMAINDER, help="-- and what to give to snakemake")
    arguments = parser.parse_args()
    command = [argument for argument in arguments.snakemake if argument != "--"]
    if not Path("Snakefile").exists():
        raise SystemExit("There is no Snakefile here; go to the folder of the run that was killed.")
    if drivers := running_drivers():
        raise SystemExit(f"Snakemake still runs here (process {drivers[0]}), so there is nothing to start again.")
    end_orphans(arguments.wait)
    subprocess.run(["snakemake", "--unlock"], check=True)
    os.execvp("snakemake", ["snakemake", *command])


if __name__ == "__main__":
    main()
