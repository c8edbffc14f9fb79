"""Loads the libraries, and forks itself for every job that asks; ends with the process that started it.

A job's process has the words, folder, environment and standard files of the `python` that asked (job.py), which waits for its
exit status; when that one is gone, the job is ended.
"""

import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
from contextlib import suppress

import numpy as np
import torch

LIBRARIES = (
    "matplotlib.pyplot",
    "pandas",
    "scipy.stats",
    "seaborn",
    "datasets",
    "peft",
    "transformers.models.emu3.modeling_emu3",
    "transformers.models.janus.modeling_janus",
    "trl.trainer.dpo_trainer",
    "trl.trainer.sft_trainer",
)


def work(request, files):
    """Become the job: run a module as `python -m` does. Its SystemExit, or any other, is left to the interpreter."""
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.path[0] = request["folder"]
    sys.argv = request["words"]
    torch.seed()  # what nobody seeds differs between processes
    np.random.seed()
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


def attend(connection):
    """Fork the job that `connection` asks for, in a process group of its own, and tell its exit status, or end it when nobody
    waits for it any longer."""
    begun, files, *_ = socket.recv_fds(connection, 1, 3)
    request = json.loads(begun + connection.makefile("rb").readline())
    job = os.fork()
    os.setpgid(job, job)  # on both sides, as either may be the first
    if not job:
        connection.close()
        return work(request, files)
    ended = os.pidfd_open(job)
    if ended not in select.select([ended, connection], [], [])[0]:
        os.killpg(job, signal.SIGTERM)
    code = os.waitstatus_to_exitcode(os.waitpid(job, 0)[1])
    with suppress(BrokenPipeError):  # nobody waits
        connection.sendall(b"%d\n" % (code if code >= 0 else 128 - code))
    os._exit(0)


def main():
    listener = socket.socket(fileno=int(sys.argv[1]))
    for library in LIBRARIES:
        importlib.import_module(library)
    gc.freeze()  # or the collector of every job would go through all of it
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that attend to jobs
    while listener in select.select([listener, sys.stdin], [], [])[0]:
        connection, _ = listener.accept()
        if not os.fork():
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            return attend(connection)
        connection.close()


if __name__ == "__main__":
    main()
