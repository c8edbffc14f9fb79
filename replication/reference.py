"""Station: the CSV files of a finished preset, gathered to be committed, with one record of where they come from.

Metrics, supervision, samples, steps and losses of all runs, a table of each; the data of the preset's own figures and tables; and,
run by run, what else these read and what the claims are recomputed from. Models, other images and logs stay behind.
`replication.restore` puts them back.
"""

import argparse
import json
import platform
import shutil
from pathlib import Path

import pandas as pd
import yaml

from replication.claim_registry import REGISTERED
from replication.claims import FILES, IDENTITY
from replication.compute import benchmark_files
from replication.files import atomic_directory

SAME_IN_ALL = ("uncommitted_changes", "python", "packages", "threads", "device")
PUT_BACK = "logs/put_back"  # tables of what lay beside models, which are not put back
RUNS = "runs.csv"  # the commit of the code that evaluated each run
TABLES = {  # of all runs: the file to write, and the file of a run
    "metrics.csv.gz": "evaluation/metrics.csv",  # 64 kB of text each
    "quality_checks.csv": "quality_check.csv",
    "supervision.csv": "supervision.csv",
    "phases.csv": "phases.csv",
    "training_counts.csv": "**/training_counts.csv",
    "training_logs.csv": "**/training_log.csv",
}


def processor():
    """Name of the processor; what the system calls it where Linux does not say."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def origin(results, command):
    """One record for all evaluations below `results`: the `command` that made them, code, packages, device, runs, and hours of
    computing; and a frame experiment, seed, commit of them.

    Several commits may have made them, as Snakemake runs again only what an edit can change; all are named. Raises SystemExit
    when code was not committed, or packages, threads or device differ.
    """
    records = [json.loads(file.read_text()) for file in sorted(results.glob("*/seed=*/evaluation/provenance.json"))]
    if not records:
        raise SystemExit(f"{results} holds no evaluation; run the preset to its end first.")
    common = {key: records[0][key] for key in SAME_IN_ALL}
    for record in records:
        for key, value in common.items():
            if record[key] != value:
                raise SystemExit(
                    f"The evaluations below {results} differ in {key} ({record[key]} and {value}); run them again in one way."
                )
    commits = {record["commit"] for record in records}
    if None in commits or common["uncommitted_changes"]:
        raise SystemExit(f"The evaluations below {results} come from uncommitted code; commit it and run them again.")
    times = [json.loads(file.read_text().splitlines()[-1])["s"] for file in benchmark_files(results)]
    runs = [(record["config"]["experiment"], record["seed"], record["commit"]) for record in records]
    record = {
        "command": command,
        "commits": sorted(commits),
        **common,
        "processor": processor(),
        "job_hours": round(sum(times) / 3600, 2),
        "seeds": sorted({record["seed"] for record in records}),
        "experiments": sorted({record["config"]["experiment"] for record in records}),
    }
    return record, pd.DataFrame(runs, columns=["experiment", "seed", "commit"])


def table_of(results, name):
    """The rows of a file of all runs, as they are written, with columns experiment, seed and, where it lies in the folder of a
    phase, phase; with those that were put back, of other runs. None where no run has it."""
    pattern, put_back = TABLES[name], results / PUT_BACK / name
    frames = []
    for file in sorted(results.glob(f"*/seed=*/{pattern}")):
        experiment, *folders = file.relative_to(results).parts[:-1]
        names = dict(folder.split("=") for folder in folders if "=" in folder)  # seed, and perhaps phase
        run = {"experiment": experiment} | {name: int(number) for name, number in names.items()}
        frames.append(pd.read_csv(file, dtype=str, keep_default_na=False).assign(**run))
    if put_back.exists():
        rows = pd.read_csv(put_back, dtype=str, keep_default_na=False)
        rows = rows.assign(**{name: pd.to_numeric(rows[name]) for name in ("seed", "phase") if name in rows})
        own = {run for frame in frames for run in zip(frame["experiment"], frame["seed"], strict=True)}
        frames.append(rows[[run not in own for run in zip(rows["experiment"], rows["seed"], strict=True)]])
    if not frames:
        return None
    return pd.concat(frames).sort_values(["experiment", "seed"], kind="stable", ignore_index=True)


def files_of(results, judged):
    """CSV and JSON files, relative to `results`: verdicts on claims, and of the experiments `judged` all that claims read."""
    patterns = ["claims*.csv"]
    for station, files in FILES.items():
        names = {*files.values(), IDENTITY[station], REGISTERED}
        patterns += [f"{experiment}/seed=*/{station}/{name}" for experiment in judged for name in names]
    patterns += [f"{name}/seed=*/discard_pool.csv" for name in judged]
    return sorted({file.relative_to(results) for pattern in patterns for file in results.glob(pattern)})


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", required=True, type=Path, help="results/<preset>, finished")
    parser.add_argument("--claims", required=True, type=Path, help="configs/claims.yaml")
    parser.add_argument("--figures", required=True, type=Path, help="folder with the data of figures and tables")
    parser.add_argument("--command", required=True, help="what made the results")
    parser.add_argument("--shown", nargs="*", default=[], type=Path, help="what else figures and tables read of runs")
    parser.add_argument("--output", required=True, type=Path, help="folder to write")
    arguments = parser.parse_args()
    given = set(pd.read_csv(arguments.results / "claims.csv")["claim"])
    claims = yaml.safe_load(arguments.claims.read_text())["claims"]
    judged = sorted({experiment for name in given for experiment in claims[name]["needs"]})
    record, runs = origin(arguments.results, arguments.command)
    with atomic_directory(arguments.output) as partial:
        shown = {file.relative_to(arguments.results) for file in arguments.shown}
        for file in sorted({*files_of(arguments.results, judged), *shown}):
            (partial / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(arguments.results / file, partial / file)
        (partial / "figures").mkdir()
        for file in sorted(arguments.figures.glob("*.csv")):
            shutil.copyfile(file, partial / "figures" / file.name)
        for name in TABLES:
            if (table := table_of(arguments.results, name)) is not None:
                compression = {"method": "gzip", "mtime": 0} if name.endswith(".gz") else None
                table.to_csv(partial / name, index=False, compression=compression)
        runs.to_csv(partial / RUNS, index=False)
        (partial / "provenance.json").write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
