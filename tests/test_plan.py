"""The cost plan: formulas against hand-worked values and real models, and its jobs against Snakemake's own count."""

import re
import subprocess
import sys

import pandas as pd
import pytest
import torch
import yaml
from families import LANGUAGE_MODELS, UNTRAINED
from settings import FAMILIES
from test_workflow import ROOT, copy_repository, dry_run

from benchmarks.shapes import janus_pro
from replication import costs, gpu_memory, plan, verdicts
from replication.gpu_memory import SIZES, Sizes

SMALL = Sizes(hidden=2, intermediate=3, layers=5, vocabulary=7, codes=11, tokens=16, pixels=4, others=13)
MODEL = {"name": "janus_pro_7b", "dtype": "bfloat16", "device": "cuda"}
DRAW = {"model": MODEL, "candidates_per_prompt": 10, "batch_size": 64, "guidance_scale": 5.0, "verdict": "likelier"}
TRAIN = {
    "model": MODEL,
    "method": "dpo",
    "epochs": 30,
    "per_device_train_batch_size": 1,
    "gradient_checkpointing": True,
}


@pytest.mark.parametrize("size", ["1b", "7b"])
def test_sizes_are_those_of_the_models(size):
    model = janus_pro(size, "meta", torch.bfloat16).model
    sizes = SIZES[f"janus_pro_{size}"]
    assert sum(weight.numel() for weight in model.parameters()) == sizes.parameters
    assert sum(weight.numel() for weight in model.model.language_model.parameters()) == sizes.language_model
    assert (sizes.codes, sizes.tokens) == (
        model.config.vq_config.num_embeddings,
        model.config.vision_config.num_image_tokens,
    )


@pytest.mark.parametrize("family", [name for name in FAMILIES if f"embedded_{name}" in SIZES])
def test_sizes_of_the_embedded_models(family):
    model, sizes = UNTRAINED[family].new_model(seed=0), SIZES[f"embedded_{family}"]
    assert sum(weight.numel() for weight in model.parameters()) == sizes.parameters
    language_model = model.get_submodule(LANGUAGE_MODELS[family])
    assert sum(weight.numel() for weight in language_model.parameters()) == sizes.language_model


def test_formulas_by_hand():
    assert gpu_memory.ASKED_AT_ONCE == verdicts.ASKED_AT_ONCE
    assert SMALL.language_model == 5 * (4 * 4 + 3 * 6 + 4) + 2 + 14  # 206
    weights, width = 219 * 2, 80  # 64 tokens of text and 16 of the image
    cache, draw, decoder = 2 * 5 * 2 * 6 * width * 2, 6 * 11 * 32, 3 * 16 * 128 * 4 * 2
    assert gpu_memory.sampling_memory(SMALL, 2, 3, True, 0) == weights + cache + decoder + 2e9
    one_pixel, many_codes = SMALL._replace(pixels=1), SMALL._replace(pixels=1, codes=1000)
    asked = 3 * 80 * (16 + 12) * 2  # more than 3 * 128 * 4 * 2 of one pixel, and than draw
    assert asked > draw and gpu_memory.sampling_memory(one_pixel, 2, 3, True, 0) == weights + cache + asked + 2e9
    kept = 2 * 5 * 2  # keys and values of five layers, until the answers are written
    written = 3 * (80 + 9) * (kept + 16 + 12) * 2
    assert gpu_memory.sampling_memory(one_pixel, 2, 3, True, 9) == weights + cache + written + 2e9
    assert gpu_memory.sampling_memory(many_codes, 2, 3, True, 9) == weights + cache + 6 * 1000 * 32 + 2e9
    for batch in (32, 100):  # however many images, 32 are asked about at once
        without = gpu_memory.sampling_memory(one_pixel, 2, batch, False, 9) - 2 * 5 * 2 * batch * width * 2
        assert without == weights + 32 * (80 + 9) * (kept + 16 + 12) * 2 + 2e9
    assert costs.verdict_seconds(SMALL, 2, 7, 3, 0) == pytest.approx(7 * 2 * 219 * 80 / 312e12 / 0.4)
    assert costs.verdict_seconds(SMALL, 0, 7, 3, 9) == pytest.approx(7 * 2 * 219 * (2 * 80 + 9) / 312e12 / 0.4)
    assert gpu_memory.adapter_parameters(SMALL, 4) == 5 * 4 * (4 * (2 + 2) + 3 * (2 + 3))
    tokens, logits = 2 * 2 * 80, 2 * 2 * 16 * 11 * 12
    activations = tokens * 2 * 2 * 5 + tokens * (16 + 12) * 2
    alone = 2 * (219 + 3 * 206) + activations + logits + 2e9
    assert gpu_memory.training_memory(SMALL, 2, 2, 2, True, None, False) == alone
    assert gpu_memory.training_memory(SMALL, 2, 2, 2, True, None, True) == alone + 2 * 219
    adapted = 2 * 219 + 4 * 4 * 620 + 5 * tokens * 28 * 2 + logits + 2e9  # adapters in float32
    assert gpu_memory.training_memory(SMALL, 2, 2, 2, False, 4, False) == adapted
    operations = 206 * 80 * 2 * (2 * (2 + 4) + 2) * 9  # pairs, two epochs, and the reference once, of nine samples
    assert costs.training_seconds(SMALL, 9, 2, 2, False, None) == pytest.approx(operations / 312e12 / 0.4)
    assert costs.least_seconds(312e12, 2e12) == costs.least_seconds(312e12, 0) == costs.least_seconds(0, 2e12) == 2.5


def test_the_guided_cache_of_256_images_is_as_large_as_was_measured():
    """benchmarks/cases.py: 139 GB or more at 256 images of Janus-Pro-7B, and 16 bit per value."""
    one, many = (gpu_memory.sampling_memory(SIZES["janus_pro_7b"], 2, batch, True, 0) for batch in (128, 256))
    assert 139e9 / 2 < many - one < 1.3 * 139e9 / 2


def test_a_batch_costs_memory_and_saves_time_and_shards_share_the_images():
    def row(**changes):
        job = plan.Job("candidates", {"--config": {**DRAW, **changes.pop("config", {})}, **changes}, True)
        return plan.drawn(job, (5600, 300)), *plan.sampled(job, (5600, 300))

    images, memory, seconds, disk = row()
    assert images == 56000 and disk == 56000 * (2 * 576 + 300)
    evaluated = {"--config": {**DRAW, "images_per_prompt": 2, "judge": {"name": "oracle"}}, "--shard": ["0", "4"]}
    assert plan.drawn(plan.Job("evaluation_shard", evaluated, True), (5600, 300)) == 300 * 2 / 4
    assert row(**{"--shard": ["3", "7"]})[0] == 8000 and row(**{"--shard": ["3", "7"]})[2] == pytest.approx(seconds / 7)
    small, plain = row(config={"batch_size": 8}), row(config={"guidance_scale": 1.0})
    assert small[1] < memory and small[2] > seconds and plain[1] < memory and plain[2] < seconds
    assert row(config={"verdict": "written", "answer_tokens": 128})[2] > seconds


def test_a_measured_rate_is_taken_before_a_computed_one(tmp_path, monkeypatch):
    names = ["janus_pro_7b_shape (images, batch 64)", "janus_pro_7b_shape (verdicts)"]
    pd.DataFrame({"name": names, "ours": [4.0, 20.0]}).to_csv(tmp_path / "cuda.csv", index=False)
    monkeypatch.setattr(plan, "CUDA_RESULTS", tmp_path / "cuda.csv")
    assert plan.sampled(plan.Job("candidates", {"--config": DRAW}, True), (100, 10))[1] == 1000 / 4 + 1000 / 20
    computed = plan.trained(plan.Job("post_training", {"--config": {**TRAIN, "lora": None}}, True), (100, 10))
    assert computed[1] == costs.training_seconds(SIZES["janus_pro_7b"], 100, 30, 2, True, None)
    assert computed[2] == 6_988_342_923 * 2 and computed[0] > 3 * 6.49e9 * 2


def test_two_models_at_once_take_the_memory_of_both():
    def memory(**options):
        return plan.sampled(plan.Job("phase_candidates", {"--config": DRAW, **options}, True), (5600, 300))[0]

    weights = 2 * SIZES["janus_pro_7b"].parameters
    assert memory(**{"--model": ["a"], "--judge": ["a"]}) == memory(**{"--model": ["a"], "--judge": []}) == memory()
    assert memory(**{"--model": ["a"], "--judge": ["b"]}) == memory() + weights


def test_a_gpu_that_is_too_small_for_a_batch_is_said_before_anything_is_loaded(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (48e9, 48e9))
    needed = gpu_memory.drawing_memory(DRAW)
    with pytest.raises(
        SystemExit, match=r"takes about \d\d GB of GPU memory .*, but 48 GB are free; .* or lower batch_size"
    ):
        gpu_memory.check_gpu(MODEL, needed, "batch_size")
    gpu_memory.check_gpu(MODEL, gpu_memory.drawing_memory({**DRAW, "batch_size": 8}), "batch_size")
    gpu_memory.check_gpu({**MODEL, "device": "cpu"}, needed, "batch_size")
    gpu_memory.check_gpu(MODEL, gpu_memory.drawing_memory({**DRAW, "model": {**MODEL, "name": "own"}}), "batch_size")
    pairs = {**TRAIN, "lora": None}
    assert gpu_memory.post_training_memory(pairs, True) - gpu_memory.post_training_memory(pairs, False) == (
        2 * SIZES["janus_pro_7b"].parameters
    )


def test_evaluations_need_what_their_judge_needs():
    def judged_by(name):
        judge = {"verdict": {"name": name, "batch_size": 8, "answer_tokens": 128}}
        return plan.Job("evaluation", {"--config": {**DRAW, "images_per_prompt": 1, "judge": judge}}, True)

    def needed(name):
        return plan.sampled(judged_by(name), (5600, 300))

    oracle, small, large = needed("oracle"), needed("qwen2_5_vl_7b"), needed("qwen2_5_vl_72b")
    assert oracle[0] == small[0] < costs.GPU_MEMORY < large[0] < 2.2 * costs.GPU_MEMORY  # one after the other
    assert oracle[1] < small[1] < large[1] and needed("own") == oracle
    table = plan.cost_table([judged_by("qwen2_5_vl_72b")] * 3, (5600, 300)).loc["evaluation"]
    assert table["GPUs"] == 2 and table["GPU-hours"] == pytest.approx(3 * 2 * table["hours (longest)"])


def test_phases_of_dpo_hold_their_reference():
    options = {"--config": {**TRAIN, "lora": None}, "--epochs": ["10", "30"]}
    alone = plan.trained(plan.Job("phase_training", options, True), (100, 10))
    beside = plan.trained(plan.Job("phase_training", {**options, "--reference": ["results/base"]}, True), (100, 10))
    assert beside[0] - alone[0] == 2 * SIZES["janus_pro_7b"].parameters and beside[1:] == alone[1:]
    sft = {**options, "--config": {**TRAIN, "lora": None, "method": "sft"}, "--reference": ["results/base"]}
    assert plan.trained(plan.Job("phase_training", sft, True), (100, 10))[0] < alone[0]


def test_a_model_of_unknown_sizes_is_counted_and_not_estimated():
    own = {**DRAW, "model": {**MODEL, "name": "own"}}
    jobs = [plan.Job("candidates", {"--config": config}, True) for config in (DRAW, own)]
    of_known, of_both = (plan.cost_table(some, (100, 10)).loc["candidates"] for some in (jobs[:1], jobs))
    assert (of_both["jobs"], of_both["images"]) == (2, 2000) and of_known["images"] == 1000
    estimated = ["GPU memory (GB)", "GPU-hours", "disk (GB)"]
    assert of_known[estimated].tolist() == of_both[estimated].tolist()
    assert plan.cost_table(jobs[1:], (100, 10)).loc["candidates", estimated].isna().all()


def test_a_rule_of_another_familys_module_is_the_rule_that_it_is():
    job = "[Wed]\nrule {}:\n    jobid: 3\nShell command: python -m m --config '{{}}' --shard 1 2 > log\n"
    names = ("candidates", "own_candidates", "embedded_emu3_own_candidates", "embedded_emu3_base_model")
    jobs = plan.read_jobs("".join(map(job.format, names)))
    assert [one.rule for one in jobs] == ["candidates", "own_candidates", "own_candidates", "base_model"]
    assert jobs[0].options["--shard"] == ["1", "2", ">", "log"]


def test_prompts_of_the_benchmarks():
    config = {"train_subtasks": ["color", "shape"], "evaluation_subtasks": ["color"], "train_prompts": None}
    assert plan.prompt_numbers({**config, "evaluation_prompts": None}) == (1400, 300 + 553)
    assert plan.prompt_numbers({**config, "train_prompts": 5, "evaluation_prompts": 4}) == (10, 8)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    return copy_repository(tmp_path_factory.mktemp("planned"))


def test_jobs_are_those_of_the_dry_run(checkout):
    settings = ["preset=smoke", "candidate_shards=3", "evaluation_shards=2"]
    done = subprocess.run(
        [sys.executable, "-m", "replication.plan", *settings], cwd=checkout, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    shown = dict(re.findall(r"^(\w+) +(\d+) +(?:submitted|here) ", done.stdout, re.MULTILINE))
    overrides = ", ".join(f'"{setting}"' for setting in settings[1:])
    text = dry_run(checkout, "--config", settings[0], f"overrides=[{overrides}]")
    counted = dict(re.findall(r"^(\w+) +(\d+)$", text.split("Job stats:")[1].split("\n\n")[0], re.MULTILINE))
    total = int(counted.pop("total"))
    assert shown == counted
    numbers = re.search(r"(\d+) jobs go to SLURM .*, (\d+) run where", done.stdout).groups()
    assert sum(map(int, numbers)) == total
    drawing = [int(counted[rule]) for rule in plan.DRAWING]
    # each drawing in three jobs, and merged once; each evaluation in two
    assert all(number % 3 == 0 for number in drawing) and sum(drawing) == 3 * int(counted["merge_candidates"])
    for rule in ("baseline_evaluation", "evaluation"):
        assert rule not in counted and int(counted[f"{rule}_shard"]) == 2 * int(counted[f"merge_{rule}"]) > 0
    # 6 x 9 prompts: 4 candidates of each, three times; 4 and 8 x 1 at evaluation
    assert f"{54 * (3 * 4 + 4 + 8)} images" in done.stdout


def test_what_is_local_is_what_takes_seconds(monkeypatch):
    monkeypatch.chdir(ROOT)
    seconds = {"prompts", "supervision", "phase_set", "last_phase_set", "claims", "figure", "table"}
    seconds |= {"merge_candidates", "merge_evaluation", "merge_baseline_evaluation"}
    assert seconds < plan.local_rules()
    gpu = set(plan.DRAWING + plan.TRAINING + plan.EVALUATING) | {"quality_check", "kernel", "simulation", "base_model"}
    assert not gpu & plan.local_rules()


def test_every_rule_that_is_submitted_has_its_place_in_the_profiles(monkeypatch):
    monkeypatch.chdir(ROOT)
    text = "\n".join(path.read_text() for path in ROOT.glob("rules/*.smk"))
    rules = {used or plain for used, plain in re.findall(r"^(?:use rule \w+ as (\w+)|rule (\w+))", text, re.MULTILINE)}
    assert "retries:" not in text  # they would be multiplied inside SLURM jobs
    profiles = [yaml.safe_load((ROOT / f"profiles/{name}/profile.v9+.yaml").read_text()) for name in ("slurm", "gpu")]
    slurm, gpu = (
        {rule for rule, needs in p["set-resources"].items() if needs in ("?gpu_job", "?judging_job")} for p in profiles
    )
    for profile in profiles:
        needs = profile["set-resources"]
        assert {rule for rule in needs if needs[rule] == "?judging_job"} == set(plan.EVALUATING)
    assert slurm == gpu == rules - plan.local_rules() - {"base_model", "simulation"}


def test_a_wrong_preset_is_one_sentence():
    done = subprocess.run(
        [sys.executable, "-m", "replication.plan", "preset=nano"], cwd=ROOT, check=False, capture_output=True, text=True
    )
    assert done.returncode != 0 and done.stderr.startswith("There is no preset 'nano'") and done.stderr.count("\n") == 1
