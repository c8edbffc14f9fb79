"""Put back what a reference holds of runs, where the runs left it: `python -m replication.restore --preset full`.

Snakemake then makes figures, tables and claims from it, and trains only for runs that the reference has not. It makes anew whatever
is older than what it was made from, so make first what all runs share:
`snakemake --cores all shared --config preset=full`.
"""

import argparse
import json
import os
import shutil
import time
from pathlib import Path

import pandas as pd

from replication.claim_registry import REGISTERED
from replication.files import atomic_directory
from replication.reference import PUT_BACK, RUNS, SAME_IN_ALL, TABLES


def restore(reference, results):
    """Write the files of runs that the folder `reference` holds to the folder `results`, and of each run a provenance.json
    without the configuration, which the commit tells, and the hours of all as one benchmark file. All get the same time, so that
    none is newer than what was made from it. An evaluation of which the reference holds metrics only judges no claim.

    Raises SystemExit where there is no reference, or `results` holds evaluations already or no candidates yet.
    """
    if not (reference / RUNS).exists():
        raise SystemExit(f"{reference} holds no reference; `snakemake reference` gathers one from a finished preset.")
    if any(results.glob("*/seed=*/evaluation")):
        raise SystemExit(
            f"{results} holds evaluations already; restore before anything is evaluated, or move them away."
        )
    if not any(results.glob("candidates/seed=*")):
        raise SystemExit(
            f"{results} holds no candidates; first run `snakemake --cores all shared --config preset={results.name}`."
        )
    record = json.loads((reference / "provenance.json").read_text())
    tables = [(name, file) for name, file in TABLES.items() if (reference / name).exists()]
    with atomic_directory(results / "restored") as partial:
        for run in reference.glob("*/seed=*"):
            shutil.copytree(run, partial / run.relative_to(reference), copy_function=shutil.copyfile)
        (partial / PUT_BACK).mkdir(parents=True)
        for name, file in tables:
            if "*" in file:  # beside models; read by nothing but the next reference
                shutil.copyfile(reference / name, partial / PUT_BACK / name)
                continue
            for folder, rows in _by_run(reference / name):
                (partial / folder / file).parent.mkdir(parents=True, exist_ok=True)
                rows.to_csv(partial / folder / file, index=False)
        for run in pd.read_csv(reference / RUNS).to_dict("records"):
            evaluated = {"commit": run["commit"], **{key: record[key] for key in SAME_IN_ALL}, "seed": run["seed"]}
            evaluated["config"] = {"experiment": run["experiment"]}
            file = partial / run["experiment"] / f"seed={run['seed']}" / "evaluation" / "provenance.json"
            file.write_text(json.dumps(evaluated, indent=2) + "\n")
            registered = file.with_name(REGISTERED)
            if not registered.exists():  # only metrics are at hand
                registered.write_text("{}")
        taken = {"s": 3600 * record["job_hours"], "cpu_time": "NA", "max_rss": "NA"}
        (partial / "logs/restored.benchmark.jsonl").write_text(json.dumps(taken) + "\n")
        now = time.time_ns()
        for path in partial.rglob("*"):
            os.utime(path, ns=(now, now))
    shutil.copytree(results / "restored", results, dirs_exist_ok=True, copy_function=os.replace)
    shutil.rmtree(results / "restored")


def _by_run(table):
    """Folder and rows of each run of a table of all, as they are written, without the columns that this run has not."""
    rows = pd.read_csv(table, dtype=str, keep_default_na=False)
    for (experiment, seed), of_run in rows.groupby(["experiment", "seed"], sort=False):
        yield Path(experiment, f"seed={seed}"), of_run.loc[:, (of_run != "").any()]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", required=True, help="results/reference/PRESET is put back to results/PRESET")
    preset = parser.parse_args().preset
    restore(Path("results/reference", preset), Path("results", preset))


if __name__ == "__main__":
    main()
