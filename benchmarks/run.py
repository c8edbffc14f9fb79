"""Speed and memory beside what a user would pick instead; every ratio comes from one run on one machine.

python -m benchmarks.run --device cpu [--only NAME] [--repeats 5]   (on Linux, whose /proc tells hardware and peak memory)
"""

import argparse
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
import torch
import transformers

from benchmarks.cases import CASES, Row
from replication.files import atomic_file
from replication.reference import processor

FOLDER = Path(__file__).parent
COLUMNS = [*Row._fields, "peak_memory_mb", "hardware", "versions"]


def hardware(device):
    """What the measurements ran on, in words."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    return f"{processor()}, {torch.get_num_threads()} threads"


def reset_peak_memory(device):
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_mb(device):
    """Highest memory of this process since `reset_peak_memory`: device memory on a GPU, resident memory otherwise."""
    if device == "cuda":
        return torch.cuda.max_memory_reserved() / 2**20
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 2**10


def write(rows, device):
    """Put `rows` in place of those of the same case in results-<device>.csv, and write the table anew."""
    path = FOLDER / f"results-{device}.csv"
    table = pd.DataFrame(rows, columns=COLUMNS)
    case = rows[0][0].split(" ")[0]
    if path.exists():
        kept = pd.read_csv(path)
        table = pd.concat([kept[kept["name"].str.split(" ").str[0] != case], table])
    order = {name: number for number, name in enumerate(CASES)}
    table = table.sort_values("name", key=lambda names: names.str.split(" ").str[0].map(order), kind="stable")
    with atomic_file(path) as partial:
        table.to_csv(partial, index=False, float_format="%.6g")
    with atomic_file(path.with_suffix(".md")) as partial:
        partial.write_text(table.to_markdown(index=False, floatfmt=".4g") + "\n")


def plot_scaling(device):
    """scaling-<device>.png: seconds and peak memory against the number of images."""
    table = pd.read_csv(FOLDER / f"results-{device}.csv")
    parts = (
        table["name"].str.extract(r"scaling \(more (?P<more>\w+): (?P<prompts>\d+) x (?P<candidates>\d+)\)").dropna()
    )
    table = table.join(parts, how="inner").astype({"prompts": int, "candidates": int})
    table["images"] = table["prompts"] * table["candidates"]
    figure, axes = plt.subplots(1, 2, figsize=(7, 3), layout="constrained")
    for axis, column, label in zip(axes, ("ours", "peak_memory_mb"), ("seconds", "peak memory (MB)"), strict=True):
        sns.lineplot(table, x="images", y=column, hue="more", style="more", markers=True, ax=axis)
        axis.set(xlabel="images sampled, decoded and judged", ylabel=label, ylim=(0, None), xlim=(0, None))
        sns.despine(ax=axis)
    with atomic_file(FOLDER / f"scaling-{device}.png") as partial:
        figure.savefig(partial, dpi=150)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], required=True)
    parser.add_argument("--only", choices=list(CASES))
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    if sys.platform != "linux":
        raise SystemExit("The benchmarks read hardware and peak memory from /proc; run them on Linux.")
    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("There is no GPU here that torch can use; run with --device cpu.")
    if arguments.only is None:  # each case in a process of its own
        skipped = {"janus_pro_7b_shape"} if arguments.device == "cpu" else set()
        common = ["--device", arguments.device, "--repeats", str(arguments.repeats)]
        for name in [name for name in CASES if name not in skipped]:
            subprocess.run([sys.executable, "-m", "benchmarks.run", "--only", name, *common], check=True)
        return
    transformers.logging.set_verbosity_error()  # `generate` warns of its own defaults, once a batch
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "trl"))
    rows = []
    reset_peak_memory(arguments.device)
    for row in CASES[arguments.only](arguments.device, arguments.repeats):
        print(f"{row.name}: {row.ours:.4g} against {row.alternative:.4g} {row.unit}, ratio {row.ratio:.2f}", flush=True)
        rows.append([*row, peak_memory_mb(arguments.device), hardware(arguments.device), versions])
        write(rows, arguments.device)  # what is measured stays, whatever becomes of the next row
        reset_peak_memory(arguments.device)
    if arguments.only == "scaling":
        plot_scaling(arguments.device)


if __name__ == "__main__":
    main()
