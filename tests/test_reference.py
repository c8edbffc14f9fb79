"""Reference results: what is copied, what is refused, and that the claims come out the same from the copy."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from synthetic_evaluations import write_evaluations

from replication.claim_registry import load_claims
from replication.claims import measure_all, read_results, verdicts
from replication.reference import SAME_IN_ALL, files_of, origin, table_of
from replication.restore import restore

ROOT = Path(__file__).parents[1]
CLAIMS = ROOT / "configs/claims.yaml"
COMMAND = "snakemake --cores all reference --config preset=full"
RUN = {"commit": "c0ffee", "uncommitted_changes": False, "python": "3.11", "packages": {"torch": "2"}, "threads": 1}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Invented results of three experiments, finished: two claims judged on them."""
    folder = tmp_path_factory.mktemp("written")
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


@pytest.fixture
def results(written, tmp_path):
    """A copy of them, to be changed."""
    return shutil.copytree(written, tmp_path / "full")


def reference(results, output):
    command = [
        sys.executable,
        "-m",
        "replication.reference",
        "--results",
        results,
        "--claims",
        CLAIMS,
        "--figures",
        results / "figures",
        "--command",
        COMMAND,
        "--output",
        output,
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_claims_come_out_the_same_from_the_copy(results, tmp_path):
    done = reference(results, tmp_path / "reference")
    assert done.returncode == 0, done.stderr
    claims = {name: load_claims()[name] for name in ("sft_improves_generation", "sft_improves_unification")}
    tables = []
    for folder in (results, tmp_path / "reference"):
        runs = [folder / f"{name}/seed={seed}/evaluation" for name in ("baseline", "sft") for seed in (0, 1)]
        data, runs = read_results(runs)
        tables.append(verdicts(claims, measure_all(claims, data, runs)[0], runs))
    pd.testing.assert_frame_equal(*tables)
    assert len(tables[0]) == 2
    copied = {
        str(file.relative_to(tmp_path / "reference")) for file in (tmp_path / "reference").rglob("*") if file.is_file()
    }
    assert not any(name.startswith("dpo/") for name in copied), "no claim was judged on dpo"
    gathered = pd.read_csv(tmp_path / "reference/metrics.csv.gz")
    files = sorted(results.glob("*/seed=*/evaluation/metrics.csv"))
    every = pd.concat([pd.read_csv(file) for file in files], ignore_index=True)
    pd.testing.assert_frame_equal(gathered, every)
    assert not any(name.endswith((".npy", ".jsonl")) for name in copied)
    record = json.loads((tmp_path / "reference/provenance.json").read_text())
    assert record["job_hours"] == 3.0 and record["seeds"] == [0, 1] and record["commits"] == ["c0ffee"]
    assert record["experiments"] == ["baseline", "dpo", "sft"] and record["command"] == COMMAND


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
    assert origin(results, COMMAND)[0]["commits"] == ["beef", "c0ffee"]
    file.write_text(json.dumps({**json.loads(file.read_text()), "commit": None}))
    with pytest.raises(SystemExit, match="uncommitted code"):
        origin(results, COMMAND)


def test_uncommitted_code_and_empty_folders_are_refused(results, tmp_path):
    for file in results.glob("*/seed=*/evaluation/provenance.json"):
        file.write_text(json.dumps({**json.loads(file.read_text()), "uncommitted_changes": True}))
    with pytest.raises(SystemExit, match="uncommitted code"):
        origin(results, COMMAND)
    with pytest.raises(SystemExit, match="no evaluation"):
        origin(tmp_path / "nothing", COMMAND)


def test_tables_of_all_runs_name_run_and_phase(results):
    rows = {
        "c_sft/seed=0/model": 7,
        "c_sft/seed=0/phase=1/model": 3,
        "c_sft_steps/seed=1/model": 7,
        "sft/seed=1/model": 5,
    }
    for folder, steps in rows.items():
        (results / folder).mkdir(parents=True)
        (results / folder / "training_counts.csv").write_text(f"samples,steps\n9,{steps}\n")
    table = table_of(results, "training_counts.csv").sort_values(["experiment", "seed", "phase"])
    assert table[["experiment", "seed", "steps"]].to_numpy().tolist() == [
        ["c_sft", 0, "3"],
        ["c_sft", 0, "7"],
        ["c_sft_steps", 1, "7"],
        ["sft", 1, "5"],
    ]
    assert table["phase"].tolist()[0] == 1 and table["phase"].isna().sum() == 3
    assert table_of(results, "supervision.csv") is None


def test_figures_and_discard_pools_are_copied(results, tmp_path):
    names = {"sft/seed=0/discard_pool.csv", "figures/sensitivity.csv"}
    for name in names:
        (results / name).parent.mkdir(parents=True, exist_ok=True)
        (results / name).write_text("a\n1\n")
    assert reference(results, tmp_path / "reference").returncode == 0
    assert all((tmp_path / "reference" / name).read_text() == "a\n1\n" for name in names)


@pytest.mark.parametrize("folder", sorted((ROOT / "results/reference").glob("*/phases.csv")), ids=str)
def test_committed_controls_took_the_samples_and_steps_of_their_replays(folder):
    """Of the trainers' own counts, in the last phase, which controls and replay train apart."""
    counts = pd.read_csv(folder.with_name("training_counts.csv"))
    last = counts[counts["phase"].isna()].set_index(["experiment", "seed"])[
        ["first_epoch", "last_epoch", "samples", "steps"]
    ]
    phases = pd.read_csv(folder)
    added = phases[phases["phase"] > 1].groupby(["experiment", "seed"])["samples_added"].sum()
    controls = [name for name in last.index.unique("experiment") if name.endswith(("_random", "_steps"))]
    controls = [name for name in controls if name.startswith("c_")]
    assert controls
    for control in controls:
        replay = control.rpartition("_")[0]
        pd.testing.assert_frame_equal(last.loc[control], last.loc[replay])
        pd.testing.assert_series_equal(added.loc[control], added.loc[replay])


def test_what_the_claims_read_of_a_kernel_is_copied(results):
    copied = {str(file) for file in files_of(results, ["sft"])}
    kernels = {f"sft/seed={seed}/kernel/{file}" for seed in (0, 1) for file in ("examples.csv", "pairs.csv")}
    assert kernels | {"sft/seed=0/kernel/claims_registered.json"} <= copied
    assert not any("kernel" in file for file in map(str, files_of(results, ["dpo"])))


def files_below(folder):
    return {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_what_is_put_back_gives_the_same_reference_again(results, tmp_path):
    for experiment, seed, text in (
        ("sft", 0, "metric,value,n\nyield,0.1000,9\n"),
        ("dpo", 1, "metric,value\nyield,1e-3\n"),
    ):
        (results / f"{experiment}/seed={seed}/supervision.csv").write_text(text)
    beside_models = ("c_sft/seed=0/model", "c_sft/seed=0/phase=1/model", "sft/seed=1/model")
    for steps, folder in enumerate(beside_models):
        (results / folder).mkdir(parents=True)
        (results / folder / "training_counts.csv").write_text(f"samples,steps\n9,{steps}\n")
    assert reference(results, tmp_path / "first").returncode == 0
    put_back = tmp_path / "again/full"
    (put_back / "candidates/seed=0").mkdir(parents=True)
    restore(tmp_path / "first", put_back)
    metrics = pd.read_csv(put_back / "dpo/seed=1/evaluation/metrics.csv")
    pd.testing.assert_frame_equal(metrics, pd.read_csv(results / "dpo/seed=1/evaluation/metrics.csv"))
    assert "0.1000" in (put_back / "sft/seed=0/supervision.csv").read_text(), "as it was written"
    assert "n" not in pd.read_csv(put_back / "dpo/seed=1/supervision.csv")
    assert not (put_back / "claims.csv").exists(), "it is judged anew"
    shutil.copyfile(results / "claims.csv", put_back / "claims.csv")
    assert reference(put_back, tmp_path / "second").returncode == 0
    assert files_below(tmp_path / "second") == files_below(tmp_path / "first")
    assert not list(put_back.glob("**/model")), "there is no model"

    one_more = put_back / "sft/seed=2/model"  # its counts join those that were put back; a run made anew has its own
    one_more.mkdir(parents=True)
    (one_more / "training_counts.csv").write_text("samples,steps\n9,7\n")
    (put_back / "sft/seed=1/model").mkdir()
    (put_back / "sft/seed=1/model/training_counts.csv").write_text("samples,steps\n9,8\n")
    counts = table_of(put_back, "training_counts.csv")
    assert counts[["experiment", "seed", "steps"]].astype(str).to_numpy().tolist() == [
        ["c_sft", "0", "0"],
        ["c_sft", "0", "1"],
        ["sft", "1", "8"],
        ["sft", "2", "7"],
    ]
    assert counts["phase"].fillna(0).tolist() == [0, 1, 0, 0]


def test_what_is_put_back_is_of_one_age_and_metrics_alone_judge_nothing(results, tmp_path):
    """Were the images of one experiment older than those that another is compared with, that one would be trained again."""
    assert reference(results, tmp_path / "reference").returncode == 0
    put_back = tmp_path / "again/full"
    (put_back / "candidates/seed=0").mkdir(parents=True)
    restore(tmp_path / "reference", put_back)
    assert len({file.stat().st_mtime_ns for file in put_back.rglob("*") if file.is_file()}) == 1
    names = ("sft_improves_generation", "dpo_improves_generation")
    claims = {name: load_claims()[name] for name in names}
    digests = sorted(put_back.glob("*/seed=*/evaluation/claims_registered.json"))
    assert len(digests) == 6
    measured, rest = measure_all(claims, *read_results([file.parent for file in digests]))
    assert list(measured) == ["sft_improves_generation"]
    assert rest.set_index("claim")["reason"]["dpo_improves_generation"] == "registered after these results"


def test_nothing_is_put_back_over_runs_or_from_nowhere(results, tmp_path):
    assert reference(results, tmp_path / "reference").returncode == 0
    before = files_below(results)
    with pytest.raises(SystemExit, match="holds evaluations already"):
        restore(tmp_path / "reference", results)
    assert files_below(results) == before
    with pytest.raises(SystemExit, match="holds no reference"):
        restore(tmp_path / "nothing", tmp_path / "new")
    with pytest.raises(SystemExit, match="snakemake --cores all shared --config preset=new"):
        restore(tmp_path / "reference", tmp_path / "new")
    assert not (tmp_path / "new").exists()
