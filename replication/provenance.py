"""Where a result comes from: code, packages, machine and configuration, as a small JSON beside the outputs."""

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from replication.files import atomic_file

NO_CODE = (":!results", ":!paper_figures")  # made by runs: a reference that was gathered anew is no change of code
PACKAGES = ("numpy", "pandas", "safetensors", "scipy", "torch", "transformers", "trl")


def write_provenance(path, config, seed=None):
    """Write commit, package versions, threads, the device of the model, seed and `config`, the section of a station that loads a
    model, to the JSON file `path`.

    Holds no times and no machine paths, so that equal runs give equal files. `commit` is None outside a git checkout.
    """
    record = {
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted_changes": bool(_git("status", "--porcelain", "--untracked-files=no", "--", ".", *NO_CODE)),
        "python": sys.version.split()[0],
        "packages": {name: version(name) for name in PACKAGES},
        "threads": int(os.environ.get("OMP_NUM_THREADS", os.cpu_count())),
        "device": config["model"]["device"],
        "seed": seed,
        "config": config,
    }
    with atomic_file(path) as partial:
        partial.write_text(json.dumps(record, indent=2, sort_keys=True) + "\n")


def _git(*arguments):
    root = Path(__file__).parents[1]
    done = subprocess.run(["git", "-C", root, *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None
