"""The compute table against hand-worked times."""

import json

import pytest

from replication.compute import compute_table


def took(folder, name, *starts):
    """A benchmark file; each of `starts` is (seconds, processor seconds, MB)."""
    file = folder / f"{name}.benchmark.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"s": s, "cpu_time": cpu, "max_rss": rss, "h:m:s": "0:00:00"}) for s, cpu, rss in starts]
    file.write_text("\n".join(lines) + "\n")


def test_times_are_added_by_station(tmp_path):
    took(tmp_path, "sft/seed=0/post_training", (60, 50, 900))
    took(tmp_path, "c_sft/seed=0/phase=1/post_training", (180, 130, 1500))
    took(tmp_path, "logs/candidates/seed=0", (3600, 3000, 100))
    took(tmp_path, "logs/base=2", (36, 36, 50))
    took(tmp_path, "family=embedded_emu3/sft/seed=0/post_training", (9999, 9999, 9999))  # has a table of its own
    table = compute_table(tmp_path).set_index("station")
    assert list(table.index) == ["candidates", "post_training", "base_model"]  # the longest first
    assert table.loc["post_training"].tolist() == pytest.approx([2, 240 / 3600, 180 / 3600, 2, 3, 1.5])
    assert table.loc["base_model"].tolist() == pytest.approx([1, 0.01, 0.01, 0.6, 0.6, 0.05])


def test_jobs_that_were_never_sampled_count_by_their_seconds(tmp_path):
    took(tmp_path, "sft/seed=0/evaluation", (60, "NA", "NA"))
    took(tmp_path, "sft/seed=1/evaluation", (120, 30, 500))
    (tmp_path / "sft/seed=2").mkdir()
    (tmp_path / "sft/seed=2/evaluation.benchmark.jsonl").touch()  # of a job that was killed as it began
    row = compute_table(tmp_path).set_index("station").loc["evaluation"]
    assert row.tolist() == pytest.approx([2, 180 / 3600, 30 / 3600, 1.5, 2, 0.5])


def test_a_folder_without_jobs_is_one_sentence(tmp_path):
    with pytest.raises(SystemExit, match="No job has left a .*; run them first"):
        compute_table(tmp_path)
