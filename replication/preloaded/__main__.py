"""The same bytes sooner: `python -m replication.preloaded snakemake --cores all paper_figures`.

Runs a command so that every `python -m replication.STATION` beneath it that has one thread is forked from a process that has
torch, transformers, trl, pandas and seaborn loaded already; loading them takes longer than most stations of a small preset.
Linux only. Jobs of SLURM start as ever.
"""

import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def python_first(folder, address):
    """The environment of a command that finds, before any other, a `python` in `folder` that asks at `address` for a fork."""
    script, job = Path(folder, "python"), Path(__file__).with_name("job.py")
    script.write_text(f'#!/bin/sh\nexec {shlex.join([sys.executable, "-IS", str(job)])} "$@"\n')
    script.chmod(0o755)
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "REPLICATION_PRELOADED": address}


def main():
    command = sys.argv[1:]
    if not command:
        raise SystemExit(__doc__)
    if sys.platform != "linux":
        raise SystemExit(f"Forking from loaded libraries needs Linux; run `{shlex.join(command)}` by itself.")
    if not shutil.which(command[0]):
        raise SystemExit(f"There is no command {command[0]!r}; write it as you would without replication.preloaded.")
    with tempfile.TemporaryDirectory(prefix="preloaded-") as folder, socket.socket(socket.AF_UNIX) as listener:
        address = str(Path(folder, "socket"))
        listener.bind(address)
        listener.listen(64)
        server = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("server.py"), str(listener.fileno())],
            env={**os.environ, **dict.fromkeys(THREADS, "1")},
            pass_fds=[listener.fileno()],
            stdin=subprocess.PIPE,  # its end tells the server that this process is gone
            process_group=0,  # a terminal's Ctrl-C is meant for the command
        )
        listener.close()  # when the server fails, jobs must not wait for it
        running = subprocess.Popen(command, env=python_first(folder, address))
        signal.signal(signal.SIGINT, lambda *_: None)  # the command has it, too, and ends as it sees fit
        signal.signal(signal.SIGTERM, lambda *_: running.terminate())
        code = running.wait()
        server.terminate()
        server.wait()
    raise SystemExit(code if code >= 0 else 128 - code)


if __name__ == "__main__":
    main()
