"""What a run will cost, before anything runs: `python -m replication.plan preset=paper`.

Jobs are those of Snakemake's own dry run, so what is there already is not planned again. What a job needs is read off its
command and the sizes of its model (replication/costs.py, replication/gpu_memory.py).
"""

import argparse
import json
import math
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from replication import costs, gpu_memory
from replication.config import load_stage, read_selection

DRAWING = ("candidates", "own_candidates", "phase_candidates")
TRAINING = ("post_training", "phase_training", "last_phase_training")
EVALUATING = ("baseline_evaluation", "evaluation", "baseline_evaluation_shard", "evaluation_shard")
ESTIMATED = DRAWING + TRAINING + EVALUATING
TRAIN_SUBTASK, EVALUATION_SUBTASK, GENEVAL = 700, 300, 553  # prompts of T2I-CompBench's and GenEval's files
RULE_FILES = [Path("Snakefile"), *sorted(Path("rules").glob("*.smk"))]
CUDA_RESULTS = Path("benchmarks/results-cuda.csv")


class Job(NamedTuple):
    """One job of the dry run: its rule, the options of its command, and whether it takes a GPU where there are any."""

    rule: str
    options: dict
    gpu: bool


def planned_jobs(selection, targets=()):
    """The `Job`s that `snakemake` would run. Raises SystemExit with what Snakemake says where it cannot plan."""
    command = [sys.executable, "-m", "snakemake", "-n", *targets, "--workflow-profile", "profiles/gpu"]
    done = subprocess.run([*command, *selection], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit((done.stdout + done.stderr)[-2000:])
    return read_jobs(done.stdout)


def read_jobs(text):
    """The `Job`s in the text of a dry run; a rule of another family's module counts as the rule that it is."""
    jobs, names = [], list(rule_blocks())
    for block in re.split(r"^\[.*\]$", text, flags=re.MULTILINE)[1:]:
        rule = re.search(r"^rule (\w+):", block, re.MULTILINE)
        if rule and "jobid:" in block:
            command = re.search(r"^Shell command: (.*)$", block, re.MULTILINE)
            name = max((name for name in names if f"_{rule[1]}".endswith(f"_{name}")), key=len)
            jobs.append(Job(name, options_of(command[1] if command else ""), "gpu=" in block))
    return jobs


def options_of(command):
    """Option -> list of its values, of a command line; --config as what it says."""
    options, name = {}, None
    for word in shlex.split(command):
        if word.startswith("--"):
            name, options[word] = word, []
        elif name:
            options[name].append(word)
    return {**options, "--config": json.loads(options["--config"][0])} if "--config" in options else options


def rule_blocks():
    """{name of a rule: its text}."""
    blocks = re.split(r"^ *(?=rule |use rule )", "\n".join(path.read_text() for path in RULE_FILES), flags=re.MULTILINE)
    named = [(re.match(r"(?:use rule \w+ as|rule) (\w+)", block), block) for block in blocks]
    return {name[1]: block for name, block in named if name}


def local_rules():
    """Names of the rules that are never submitted: those that say `localrule: True`, which what uses them does not inherit."""
    return {name for name, block in rule_blocks().items() if re.search(r"^ +localrule: True", block, re.MULTILINE)}


def prompt_numbers(config):
    """(training, evaluation) prompts of the station `prompts`; of benchmarks at most, as what leaks is dropped."""
    if "train_subtasks" in config:
        train = len(config["train_subtasks"]) * (config["train_prompts"] or TRAIN_SUBTASK)
        evaluation = len(config["evaluation_subtasks"]) * (config["evaluation_prompts"] or EVALUATION_SUBTASK)
        return train, evaluation + (config["evaluation_prompts"] or GENEVAL)
    return 9 * config["train_prompts_per_subtask"], 9 * config["evaluation_prompts_per_subtask"]


def measured(name):
    """What `python -m benchmarks.run --device cuda` measured under this name, or None."""
    if not CUDA_RESULTS.exists():
        return None
    rows = pd.read_csv(CUDA_RESULTS).set_index("name")["ours"]
    return rows.get(name)


def drawn(job, prompts):
    """Images that a job draws."""
    config, (train, evaluation) = job.options["--config"], prompts
    if job.rule in TRAINING:
        return 0
    shards = int(job.options["--shard"][1]) if "--shard" in job.options else 1
    if job.rule in EVALUATING:
        return evaluation * config["images_per_prompt"] / shards
    return train * config["candidates_per_prompt"] / shards


def sampled(job, prompts):
    """(GPU memory in bytes, seconds, bytes on disk) of a job that draws and judges images; benchmarks' own judges are left out."""
    config, images = job.options["--config"], drawn(job, prompts)
    sizes, values = gpu_memory.SIZES[config["model"]["name"]], gpu_memory.BYTES[config["model"]["dtype"]]
    batch, guided = config["batch_size"], config["guidance_scale"] != 1
    answer = config["answer_tokens"] if config["verdict"] == "written" else 0
    rate = measured(f"{config['model']['name']}_shape (images, batch {batch})")
    seconds = images / rate if rate else costs.sampling_seconds(sizes, values, images, batch, guided)
    judged = images * (2 if job.options.get("--baseline") else 1)  # the pre-trained model's images are judged, too
    kind = "written verdicts" if answer else "verdicts"
    rate = measured(f"{config['model']['name']}_shape ({kind})")
    seconds += judged / rate if rate else costs.verdict_seconds(sizes, values, judged, batch, answer)
    roles = ("--model", "--judge", "--understanding")
    models = {folder for role in roles for folder in job.options.get(role, [])}
    memory = gpu_memory.drawing_memory(config, max(len(models), 1))
    if judge := judge_of(job):  # the models have made room for it
        memory = max(memory, costs.judge_memory(costs.JUDGES[judge["name"]]))
        seconds += costs.judge_seconds(costs.JUDGES[judge["name"]], images, judge["batch_size"], judge["answer_tokens"])
    disk = images * (2 * sizes.tokens + 300 + (0 if job.rule in DRAWING else 3 * sizes.pixels**2))
    return memory, seconds, disk


def judge_of(job):
    """The block of configs/judge of the verdict judge that an evaluation asks; None where it asks none of known size."""
    judge = job.options["--config"]["judge"] if job.rule in EVALUATING else {}
    block = judge.get("verdict")
    return block if block and block["name"] in costs.JUDGES else None


def gpus_of(job, memory):
    """GPUs that a job holds: one, or as many as its judge is spread over."""
    return math.ceil(memory / costs.GPU_MEMORY) if judge_of(job) else 1


def trained(job, prompts):
    """(GPU memory in bytes, seconds, bytes on disk) of a training with one sample of each prompt, the most it gets."""
    config = job.options["--config"]
    sizes, values = gpu_memory.SIZES[config["model"]["name"]], gpu_memory.BYTES[config["model"]["dtype"]]
    first, last = (int(epoch) for epoch in job.options.get("--epochs", [0, config["epochs"]]))
    pair, adapter = 2 if config["method"] == "dpo" else 1, bool(config["lora"])
    seconds = costs.training_seconds(sizes, prompts[0], last - first, pair, config["gradient_checkpointing"], adapter)
    memory = gpu_memory.post_training_memory(config, bool(job.options.get("--reference")))
    return memory, seconds, sizes.parameters * values


def cost_table(jobs, prompts):
    """One row per rule: jobs, how they are run, images, GPU memory of a job, its GPUs, hours of the longest job, GPU-hours and disk
    of all; None: not estimated, as of a model whose sizes are not known."""
    local, rows = local_rules(), {}
    for job in jobs:
        row = rows.setdefault(job.rule, [0, "here" if job.rule in local else "submitted", 0, *[None] * 5])
        row[0] += 1
        if job.rule not in ESTIMATED:
            continue
        row[2] += round(drawn(job, prompts))
        if job.options["--config"]["model"]["name"] in gpu_memory.SIZES:
            memory, seconds, disk = (trained if job.rule in TRAINING else sampled)(job, prompts)
            if job.options["--config"]["model"]["device"] == "cuda":
                gpus, hours = gpus_of(job, memory), seconds / 3600
                largest = zip(row[3:6], (memory / gpu_memory.GB, gpus, hours), strict=True)
                row[3:6] = (max(known or 0, new) for known, new in largest)
                row[6] = (row[6] or 0) + gpus * hours
            row[7] = (row[7] or 0) + disk / gpu_memory.GB
    columns = ["jobs", "run", "images", "GPU memory (GB)", "GPUs", "hours (longest)", "GPU-hours", "disk (GB)"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "selection", nargs="*", help="preset=NAME, base=NAME, family=NAME and other settings, such as seeds=[0]"
    )
    parser.add_argument("--targets", nargs="*", default=[], help="of Snakemake; all that the preset shows by default")
    arguments = parser.parse_args()
    pairs = [word.partition("=")[::2] for word in arguments.selection]
    chosen = {key: value for key, value in pairs if key in ("preset", "base", "family")}
    overrides = [f"{key}={value}" for key, value in pairs if key not in chosen]
    preset, base, checked, _ = read_selection({**chosen, "overrides": overrides})
    selection = [f"{key}={value}" for key, value in chosen.items()] + [f"overrides={json.dumps(overrides)}"]
    jobs = planned_jobs(["--config", *selection], arguments.targets)
    prompts = prompt_numbers(load_stage("prompts", preset, base, overrides=checked))
    table = cost_table(jobs, prompts)
    if table.empty:
        raise SystemExit(f"Nothing to be done: everything of preset {preset} is there.")
    print(table.astype(object).where(table.notna(), "").to_string(float_format="{:.3g}".format))
    by_run = table.groupby("run")["jobs"].sum()
    print(
        f"\n{by_run.get('submitted', 0)} jobs go to SLURM with profiles/slurm, {by_run.get('here', 0)} run where it is called."
    )
    print(
        f"{table['images'].sum()} images, {table['GPU-hours'].sum():.3g} GPU-hours, {table['disk (GB)'].sum():.3g} GB on disk."
    )
    unknown = {
        job.options["--config"]["model"]["name"] for job in jobs if job.rule in ESTIMATED
    } - gpu_memory.SIZES.keys()
    if unknown:
        print(
            f"Memory, GPU-hours and disk leave out {', '.join(unknown)}, whose sizes SIZES in replication/gpu_memory.py lacks."
        )
    gpus, memory = table["GPUs"].fillna(0), table["GPU memory (GB)"].fillna(0)
    for rule in table.index[gpus > 1]:
        print(f"{rule} spreads its judge over {gpus[rule]:.0f} GPUs: say so for `judging_job` in the profile.")
    for rule in table.index[(memory > costs.GPU_MEMORY / gpu_memory.GB) & (gpus == 1)]:
        print(f"{rule} needs more than the {costs.GPU_MEMORY / gpu_memory.GB:.0f} GB of one GPU: lower its batch size.")
    source = f"rates of {CUDA_RESULTS}, where it has the batch size, else an" if CUDA_RESULTS.exists() else "an"
    print(
        f"GPU-hours: {source} NVIDIA A100 at {costs.UTILISATION:.0%} of its peak (not measured); {prompts[0]} training and"
        f" {prompts[1]} evaluation prompts; trainings and replays count every training prompt, which is the most they get."
        " Judges of the benchmarks' own scores take little beside, and are left out. Rules without a number draw, train and"
        " evaluate nothing, or little."
    )


if __name__ == "__main__":
    main()
