"""Reference results: what is copied, what is refused, and that the claims come out the same from the copy."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from synthetic_evaluations import write_evaluations

from replication.claim_registry import load_claims
from replication.claims import judge, read_results
from replication.reference import SAME_IN_ALL, files_of, origin

CLAIMS = Path(__file__).parents[1] / "configs/claims.yaml"
RUN = {"commit": "c0ffee", "uncommitted_changes": False, "python": "3.11", "packages": {"torch": "2"}, "threads": 1}


@pytest.fixture
def results(tmp_path):
    """Invented results of three experiments, finished: two claims judged on them."""
    folder = tmp_path / "full"
    write_evaluations(folder, experiments=["baseline", "sft", "dpo"], runs={0: "base-0", 1: "base-1"})
    for evaluation in folder.glob("*/seed=*/evaluation"):
        experiment, seed = evaluation.parts[-3], int(evaluation.parts[-2].removeprefix("seed="))
        record = {**RUN, "device": "cpu", "seed": seed, "config": {"experiment": experiment}}
        (evaluation / "provenance.json").write_text(json.dumps(record))
        (evaluation / "images.npy").write_bytes(b"not for the repository")
        (evaluation.parent / "evaluation.benchmark.jsonl").write_text('{"s": 1800.0}\n')
    claims = pd.DataFrame({"claim": ["sft_improves_generation", "sft_improves_unification"]})
    claims.to_csv(folder / "claims.csv", index=False)
    return folder


def reference(results, output):
    command = [
        sys.executable,
        "-m",
        "replication.reference",
        "--results",
        results,
        "--claims",
        CLAIMS,
        "--output",
        output,
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_claims_come_out_the_same_from_the_copy(results, tmp_path):
    done = reference(results, tmp_path / "reference")
    assert done.returncode == 0, done.stderr
    claims = {name: load_claims()[name] for name in ("sft_improves_generation", "sft_improves_unification")}
    first, second = (
        judge(
            claims,
            *read_results(
                [folder / f"{name}/seed={seed}/evaluation" for name in ("baseline", "sft") for seed in (0, 1)]
            ),
        )
        for folder in (results, tmp_path / "reference")
    )
    pd.testing.assert_frame_equal(first[0], second[0])
    assert len(first[0]) == 2
    copied = {
        str(file.relative_to(tmp_path / "reference")) for file in (tmp_path / "reference").rglob("*") if file.is_file()
    }
    assert "dpo/seed=0/evaluation/metrics.csv" in copied, "metrics of every run"
    assert "dpo/seed=0/evaluation/images.csv" not in copied, "no claim was judged on dpo"
    assert not any(name.endswith((".npy", ".jsonl")) for name in copied)
    record = json.loads((tmp_path / "reference/provenance.json").read_text())
    assert record["job_hours"] == 3.0 and record["seeds"] == [0, 1] and record["commits"] == ["c0ffee"]
    assert record["experiments"] == ["baseline", "dpo", "sft"]


@pytest.mark.parametrize("key", SAME_IN_ALL)
def test_evaluations_of_different_making_are_refused(results, tmp_path, key):
    file = results / "sft/seed=1/evaluation/provenance.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), key: "another"}))
    done = reference(results, tmp_path / "reference")
    assert done.returncode == 1 and f"differ in {key}" in done.stderr
    assert not (tmp_path / "reference").exists()


def test_every_commit_is_named(results):
    file = results / "sft/seed=1/evaluation/provenance.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "commit": "beef"}))
    assert origin(results)["commits"] == ["beef", "c0ffee"]
    file.write_text(json.dumps({**json.loads(file.read_text()), "commit": None}))
    with pytest.raises(SystemExit, match="uncommitted code"):
        origin(results)


def test_uncommitted_code_and_empty_folders_are_refused(results, tmp_path):
    for file in results.glob("*/seed=*/evaluation/provenance.json"):
        file.write_text(json.dumps({**json.loads(file.read_text()), "uncommitted_changes": True}))
    with pytest.raises(SystemExit, match="uncommitted code"):
        origin(results)
    with pytest.raises(SystemExit, match="no evaluation"):
        origin(tmp_path / "nothing")


def test_what_equal_compute_curricula_and_figures_are_read_off_is_copied(results):
    names = {
        "c_sft/seed=0/phases.csv",
        "c_sft/seed=0/model/training_counts.csv",
        "c_sft/seed=0/phase=1/model/training_counts.csv",
        "c_sft/seed=0/phase=1/model/training_log.csv",
        "s_n_2/seed=0/supervision.csv",
        "sft/seed=0/quality_check.csv",
        "sft/seed=0/discard_pool.csv",
        "figures/sensitivity.csv",
    }
    for name in names:
        (results / name).parent.mkdir(parents=True, exist_ok=True)
        (results / name).write_text("a\n1\n")
    assert names <= {str(file) for file in files_of(results, ["sft"])}


def test_what_the_claims_read_of_a_kernel_is_copied(results):
    copied = {str(file) for file in files_of(results, ["sft"])}
    kernels = {f"sft/seed={seed}/kernel/{file}" for seed in (0, 1) for file in ("examples.csv", "pairs.csv")}
    assert kernels | {"sft/seed=0/kernel/claims_registered.json"} <= copied
    assert not any("kernel" in file for file in map(str, files_of(results, ["dpo"])))
