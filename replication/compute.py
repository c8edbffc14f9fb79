"""What a run took, read off the benchmark files that Snakemake writes for its jobs: the compute table of the report."""

import argparse
import json
from pathlib import Path

import pandas as pd

from replication.files import atomic_file

SUFFIX = ".benchmark.jsonl"


def station_of(path):
    """The station that a benchmark file is of; those that are named for a run or a base model are in `logs`."""
    name = path.name.removesuffix(SUFFIX)
    number = name.partition("=")[0]
    return {"base": "base_model", "seed": "candidates"}.get(number, number)


def benchmark_files(results):
    """Benchmark files of the jobs of a preset, sorted; those of other families, in folders of their own, are left out."""
    found = sorted(file.relative_to(results) for file in results.rglob(f"*{SUFFIX}") if file.stat().st_size)
    return [results / file for file in found if not file.parts[0].startswith("family=")]


def compute_table(results):
    """One row per station of the folder `results`, the longest first: jobs, hours and processor_hours of all, the mean and the
    largest minutes of a job, and max_rss_gb, the most memory that a job took (resident, GB; GPU memory is not in it).

    Raises SystemExit where there is no benchmark file.
    """
    files = benchmark_files(Path(results))
    if not files:
        raise SystemExit(f"No job has left a *{SUFFIX} in {results}, so what they took is not known; run them first.")
    taken = pd.DataFrame(json.loads(file.read_text().splitlines()[-1]) for file in files)
    # "NA" where a job was never sampled
    taken = taken[["s", "cpu_time", "max_rss"]].apply(pd.to_numeric, errors="coerce")
    of_station = taken.assign(station=[station_of(file) for file in files]).groupby("station")
    table = pd.DataFrame(
        {
            "jobs": of_station.size(),
            "hours": of_station["s"].sum() / 3600,
            "processor_hours": of_station["cpu_time"].sum() / 3600,
            "mean_minutes": of_station["s"].mean() / 60,
            "max_minutes": of_station["s"].max() / 60,
            "max_rss_gb": of_station["max_rss"].max() / 1000,
        }
    )
    return table.sort_values("hours", ascending=False, kind="stable").reset_index()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, required=True, help="folder of a preset's results")
    parser.add_argument("--output", type=Path, required=True, help="CSV")
    arguments = parser.parse_args()
    table = compute_table(arguments.results)
    with atomic_file(arguments.output) as partial:
        table.to_csv(partial, index=False, float_format="%.3f")


if __name__ == "__main__":
    main()
