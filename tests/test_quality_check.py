"""The check of a training set: its measures by hand, its answer, and the command line as a stranger uses it."""

import json
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from settings import MODEL

from replication import quality_check
from replication.config import load_stage
from replication.corruption import named_rng
from replication.metrics import COLUMNS
from replication.quality_check import (
    MEASURES,
    answer,
    data_measures,
    judge_measures,
    labelling_sheet,
    mismatched_verdicts,
    oracle_labels,
    report,
)
from replication.scenes import oracle

TEXTS = ["an image of a triangle", "an image of a square", "an image of a circle", "an image of a diamond"]
CONFIG = load_stage("quality_check", "tiny", experiment="sft") | {"batch_size": 8}


def labels(chosen, candidate, rejected=()):
    """A labelled sheet from lists of labels."""
    parts = {"chosen": chosen, "rejected": rejected, "candidate": candidate}
    return pd.DataFrame(
        [(part, sample, label) for part, rows in parts.items() for sample, label in enumerate(rows)],
        columns=["part", "sample", "label"],
    )


def measured(**contrasts):
    """A frame of measures with the given contrasts, each (low, high), beside the shares that a report quotes."""
    rows = [(name, np.mean(interval), 100, *interval) for name, interval in contrasts.items()]
    shares = ("precision_chosen", "own_right", "accepted_share", "mismatched_yes_rate")
    return pd.DataFrame(rows + [(name, 0.5, 100, 0.4, 0.6) for name in shares], columns=MEASURES)


@pytest.fixture
def world(tmp_path, model):
    """Folder with candidates.csv, codes.npy and training_set.csv (pairs) of random images, of which the decoder makes
    pictures that the oracle can read. Small enough that every row is in the sheet."""
    codes = np.random.default_rng(0).integers(320, size=(24, 36)).astype(np.int16)
    candidates = pd.DataFrame({"prompt": np.repeat(TEXTS, 6), "alignment_logit": np.linspace(-2, 2, 24)})
    candidates.assign(verdict=(candidates["alignment_logit"] > 0).astype(int)).to_csv(
        tmp_path / "candidates.csv", index=False
    )
    np.save(tmp_path / "codes.npy", codes)
    pairs = pd.DataFrame({"prompt": TEXTS[1:] + TEXTS[:1], "chosen": [0, 6, 12, 18], "rejected": [1, 7, 13, 19]})
    pairs.to_csv(tmp_path / "training_set.csv", index=False)
    return tmp_path


def check(monkeypatch, folder, *options):
    """The station's measures as a frame, run in this process."""
    command = ["quality_check", "--candidates", folder, "--training-set", folder / "training_set.csv"]
    command += ["--output", folder / "check.csv", *options]
    monkeypatch.setattr(sys, "argv", [str(word) for word in command])
    quality_check.main()
    return pd.read_csv(folder / "check.csv").query("judge != 'embedded'").set_index("metric")


def test_measures_by_hand():
    rows = data_measures(labels([1, 1, 1, 0], [1, 0], rejected=[0, 0, 1, 1]))
    rows += judge_measures(np.array([1, 1, 1, 0]), np.array([1, 0, 0, 0]))
    table = pd.DataFrame(rows, columns=MEASURES).set_index("metric")
    expected = {"precision_chosen": 0.75, "own_right": 0.5, "advantage": 0.25, "pair_margin": 0.25}
    expected |= {"accepted_share": 0.75, "mismatched_yes_rate": 0.25, "discrimination": 0.5}
    assert table["value"].to_dict() == expected
    assert table["n"].to_dict() == {
        "precision_chosen": 4,
        "own_right": 2,
        "advantage": 6,
        "pair_margin": 4,
        "accepted_share": 4,
        "mismatched_yes_rate": 4,
        "discrimination": 8,
    }
    assert ((table["low"] < table["value"]) & (table["value"] < table["high"])).all()


def test_pairs_are_compared_sample_by_sample():
    """Rows of the sheet may come in any order; a margin belongs to one pair."""
    sheet = labels([1, 0, 1], [1, 1, 0], rejected=[0, 1, 0])
    for rows in (sheet, sheet.iloc[::-1]):
        margin = pd.DataFrame(data_measures(rows), columns=MEASURES).set_index("metric").loc["pair_margin"]
        assert margin["value"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("contrasts", "expected", "words"),
    [
        ({"advantage": (0.1, 0.3)}, 1, "This set is fit to train on."),
        ({"advantage": (-0.3, -0.1)}, -1, "less than the 50 %"),
        ({"advantage": (-0.1, 0.1)}, 0, "neither provably more nor less than the 50 %"),
        ({"advantage": (0.1, 0.3), "pair_margin": (-0.3, -0.1)}, -1, "are fewer than the reverse"),
        ({"advantage": (0.1, 0.3), "discrimination": (-0.5, -0.1)}, -1, "another one's prompt"),
        ({"advantage": (0.1, 0.3), "discrimination": (0.0, 0.0)}, 0, "This check cannot tell."),
        ({"advantage": (0.1, 0.3), "kappa": (-0.9, -0.5)}, -1, "less than by chance"),
        ({"advantage": (0.1, 0.3), "kappa": (np.nan, np.nan)}, 0, "This check cannot tell."),
        ({"advantage": (0.1, 0.3), "kappa": (0.4, 0.6), "discrimination": (0.2, 0.5)}, 1, "kappa 0.50 [0.40, 0.60]"),
    ],
)
def test_the_worst_contrast_decides(contrasts, expected, words):
    measures = measured(**contrasts)
    assert answer(measures) == expected
    assert words in report(measures) and "\n" not in report(measures)


def test_the_sheet_is_a_random_part_of_both():
    candidates = pd.DataFrame({"prompt": np.repeat(TEXTS, 50)})
    training_set = pd.DataFrame({"prompt": TEXTS * 10, "chosen": range(40), "rejected": range(40, 80)})
    sheet = labelling_sheet(candidates, training_set, 30, named_rng(0, "sheet"))
    assert sheet["part"].value_counts().to_dict() == {"chosen": 30, "rejected": 30, "candidate": 30}
    assert not sheet.duplicated(["part", "sample"]).any()
    chosen = sheet[sheet["part"] == "chosen"]
    assert (training_set["chosen"].loc[chosen["sample"]].to_numpy() == chosen["image"].to_numpy()).all()
    own = sheet[sheet["part"] == "candidate"]
    assert (candidates["prompt"].loc[own["image"]].to_numpy() == own["prompt"].to_numpy()).all()
    assert own["image"].max() > 100  # not the first ones
    assert sheet.equals(labelling_sheet(candidates, training_set, 30, named_rng(0, "sheet")))
    assert not sheet.equals(labelling_sheet(candidates, training_set, 30, named_rng(1, "sheet")))
    assert len(labelling_sheet(candidates, training_set[["prompt", "chosen"]], 500, named_rng(0, "s"))) == 40 + 200


def test_precision_is_that_of_the_pairs_as_they_are_trained(world, model, checkpoint, monkeypatch, capsys):
    """The oracle is asked about the training set's own prompts, which are not those that the images were drawn for."""
    table = check(monkeypatch, world, "--model", checkpoint, "--judge", checkpoint, "--config", json.dumps(CONFIG))
    codes = torch.from_numpy(np.load(world / "codes.npy")).long()
    pairs, candidates = pd.read_csv(world / "training_set.csv"), pd.read_csv(world / "candidates.csv")

    def truth(rows, prompts):
        return oracle.judge(model.decode_images(codes[list(rows)]), list(prompts))

    chosen, rejected = (truth(pairs[part], pairs["prompt"]) for part in ("chosen", "rejected"))
    own = truth(range(24), candidates["prompt"])
    assert 0 < own.mean() < 1
    assert table.loc["precision_chosen", "value"] == chosen.mean() and table.loc["precision_chosen", "n"] == 4
    assert table.loc["own_right", "value"] == pytest.approx(own.mean())
    assert table.loc["pair_margin", "value"] == chosen.mean() - rejected.mean()
    assert list(table.reset_index()[COLUMNS]) == COLUMNS and (table["experiment"] == "sft").all()
    with torch.no_grad():
        logits = model.alignment_logits(model.decode_images(codes), candidates["prompt"].tolist())
    first, second = candidates["verdict"].to_numpy(), (logits > 0).int().numpy()
    by_chance = sum((first == verdict).mean() * (second == verdict).mean() for verdict in (0, 1))
    assert table.loc["kappa", "value"] == pytest.approx(((first == second).mean() - by_chance) / (1 - by_chance))
    assert capsys.readouterr().out.startswith(quality_check.ANSWERS[table.loc["answer", "value"]])

    rows = pd.read_csv(world / "check.csv")
    by_judge = rows[rows["judge"] == "embedded"].set_index("metric")["value"]
    with torch.no_grad():
        chosen_logits = model.alignment_logits(model.decode_images(codes[list(pairs["chosen"])]), list(pairs["prompt"]))
    assert by_judge["precision_chosen"] == (chosen_logits > 0).float().mean().item()
    assert by_judge["own_right"] == pytest.approx(second.mean())
    assert set(table.index[table["judge"] == "oracle"]) == {*by_judge.index, "answer"}
    assert set(table.index[table["judge"] == "none"]) == {
        "accepted_share",
        "mismatched_yes_rate",
        "discrimination",
        "kappa",
    }


@pytest.mark.parametrize(
    ("corruption", "strength"), [("none", None), ("swapped", None), ("flipped", 1.0), ("accept_everything", None)]
)
def test_the_judge_of_mismatched_pairs_is_corrupted_too(world, model, corruption, strength):
    codes, candidates = np.load(world / "codes.npy"), pd.read_csv(world / "candidates.csv")
    pairs = candidates[["prompt"]].assign(image=candidates.index)
    own = mismatched_verdicts(model, codes, pairs, CONFIG, 0)
    config = CONFIG | {"corruption": corruption, "corruption_strength": strength}
    expected = {"none": own, "swapped": 1 - own, "flipped": 1 - own, "accept_everything": 0 * own + 1}[corruption]
    assert mismatched_verdicts(model, codes, pairs, config, 0).tolist() == expected.tolist()


def test_the_oracle_as_judge_sees_through_mismatched_pairs(world, model):
    codes, candidates = np.load(world / "codes.npy"), pd.read_csv(world / "candidates.csv")
    pairs = candidates[["prompt"]].assign(image=candidates.index)
    verdicts = mismatched_verdicts(model, codes, pairs, CONFIG | {"corruption": "oracle"}, 0)
    right = sum(oracle_labels(model, codes, pairs.assign(prompt=np.roll(pairs["prompt"], 6 * k)), 8) for k in (1, 2, 3))
    assert (verdicts.to_numpy() <= (right > 0)).all() and (verdicts.to_numpy() >= (right == 3)).all()


def test_a_stranger_with_labels_needs_no_model(world, monkeypatch, capsys):
    labels_file, pairs = world / "labels.csv", pd.read_csv(world / "training_set.csv")
    candidates = pd.read_csv(world / "candidates.csv")["prompt"]
    asked = {*candidates.items()} | {*zip(pairs["chosen"], pairs["prompt"], strict=True)}
    asked |= {*zip(pairs["rejected"], pairs["prompt"], strict=True)}
    with pytest.raises(SystemExit, match=rf"labels\.csv is new: in its {len(asked)} rows write label 1"):
        check(monkeypatch, world, "--labels", labels_file)
    sheet = pd.read_csv(labels_file)
    assert sheet["label"].isna().all() and not (world / "check.csv").exists()
    with pytest.raises(SystemExit, match=f"has {len(asked)} rows whose label is neither 0 nor 1"):
        check(monkeypatch, world, "--labels", labels_file)
    chosen = {*zip(pairs["chosen"], pairs["prompt"], strict=True)}
    sheet["label"] = [int(pair in chosen) for pair in zip(sheet["image"], sheet["prompt"], strict=True)]
    sheet.sample(frac=1, random_state=0).to_csv(labels_file, index=False)  # sorted anew in a spreadsheet
    table = check(monkeypatch, world, "--labels", labels_file)
    own = sum(pair in chosen for pair in candidates.items()) / len(candidates)
    assert table.loc[["precision_chosen", "own_right", "pair_margin"], "value"].tolist() == [1, pytest.approx(own), 1]
    assert table.loc["answer", "value"] == 1 and "kappa" not in table.index
    assert "This set is fit to train on. Of 4 labelled training samples 100 %" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="belongs to another training set"):
        check(
            monkeypatch, world, "--labels", labels_file, "--seed", "1", "--config", json.dumps(CONFIG | {"labelled": 3})
        )


def test_the_sheet_does_not_tell_what_the_model_prefers(world, monkeypatch):
    """The same pairs, whichever of them are chosen and whichever rejected: not even their order differs."""
    sheets = []
    for swapped in (False, True):
        pairs = pd.read_csv(world / "training_set.csv")
        if swapped:
            pairs = pairs.rename(columns={"chosen": "rejected", "rejected": "chosen"})
        pairs.to_csv(world / "training_set.csv", index=False)
        with pytest.raises(SystemExit, match="is new"):
            check(monkeypatch, world, "--labels", world / f"labels_{swapped}.csv")
        sheets.append(pd.read_csv(world / f"labels_{swapped}.csv"))
    for sheet in sheets:
        assert list(sheet) == ["image", "prompt", "label"] and not sheet.duplicated().any()
    order = [f"{row.image} {row.prompt}" for row in sheets[0].itertuples()]
    assert set(order) == {f"{row.image} {row.prompt}" for row in sheets[1].itertuples()} and order != sorted(order)
    of_set = sheets[0]["image"].isin(pairs["chosen"]) | sheets[0]["image"].isin(pairs["rejected"])
    assert of_set.to_numpy().any() and not of_set.is_monotonic_decreasing, "in no blocks"


def test_rows_that_are_no_candidates_are_one_sentence(world, monkeypatch):
    pairs = pd.read_csv(world / "training_set.csv")
    pairs.assign(rejected=24).to_csv(world / "training_set.csv", index=False)
    with pytest.raises(SystemExit, match=r"names rows that candidates\.csv does not have \(0 to 23\)"):
        check(monkeypatch, world, "--labels", world / "labels.csv")


def test_a_sheet_comes_with_its_images_where_a_model_can_draw_them(world, checkpoint, monkeypatch):
    config = json.dumps(CONFIG | {"model": MODEL | {"name": "embedded_janus"}})
    with pytest.raises(SystemExit, match="is new"):
        check(monkeypatch, world, "--labels", world / "labels.csv", "--model", checkpoint, "--config", config)
    images = {path.stem for path in (world / "labels_images").glob("*.png")}
    assert images == set(pd.read_csv(world / "labels.csv")["image"].astype(str))


def test_missing_inputs_are_one_sentence(world, monkeypatch):
    with pytest.raises(SystemExit, match="^Give --labels or --model"):
        check(monkeypatch, world)
    pd.DataFrame({"text": []}).to_csv(world / "training_set.csv")
    with pytest.raises(SystemExit, match="has no column prompt, chosen; it needs prompt, chosen"):
        check(monkeypatch, world, "--labels", world / "labels.csv")
    (world / "training_set.csv").unlink()
    with pytest.raises(SystemExit, match="^There is no .*training_set.csv"):
        check(monkeypatch, world, "--labels", world / "labels.csv")
