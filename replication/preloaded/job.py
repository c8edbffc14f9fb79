"""What `python` is beneath `python -m replication.preloaded`: asks the server to fork the job, and waits for its exit status.

Run without site-packages, so that it takes milliseconds. Whatever is no single-threaded station is run by the interpreter itself:
the server computes with one thread, and another number could change the last digits of a result. So is a job of SLURM, which must
stay within what it was given.
"""

import json
import os
import socket
import sys

words = sys.argv[1:]
station = words[:1] == ["-m"] and "".join(words[1:2]).startswith("replication.")
if not station or os.environ.get("OMP_NUM_THREADS") != "1" or "SLURM_JOB_ID" in os.environ:
    os.execv(sys.executable, [sys.executable, *words])
request = {"words": words[1:], "folder": os.getcwd(), "environment": dict(os.environ)}
message = json.dumps(request).encode() + b"\n"
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect(os.environ["REPLICATION_PRELOADED"])
    connection.sendall(message[socket.send_fds(connection, [message], [0, 1, 2]) :])
    sys.exit(int(connection.recv(16) or 1))
