"""Interventions: a projected step moves no understanding to first order, and frozen groups of layers stay as they are."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from settings import DPO, MODEL, SFT
from synthetic_runs import intervention_runs
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from replication.config import load_paper, load_stage
from replication.corruption import named_rng
from replication.dynamics.interventions import OrthogonalSteps, without
from replication.figures import interventions
from replication.models.janus import JanusModel
from replication.models.tiny import CODEBOOK_SIZE
from replication.post_training import post_train
from replication.statistics import cluster_bootstrap_ci
from replication.style import save

PROMPTS = ["an image of a triangle", "a picture of a striped purple triangle"] * 4
CODES = np.random.default_rng(0).integers(CODEBOOK_SIZE, size=(8, 36)).astype(np.int16)
CANDIDATES = pd.DataFrame({"prompt": PROMPTS})
TRAINING_SET = pd.DataFrame({"prompt": PROMPTS[:4], "chosen": [0, 1, 2, 3], "rejected": [4, 5, 6, 7]})


def test_a_step_without_directions_by_hand():
    step = torch.tensor([1.0, 2.0, 3.0])
    rows = torch.tensor([[2.0, 0, 0], [-1.0, 0, 0], [0, 0, 0]], dtype=torch.float64)  # one direction, three times
    assert without(step, rows, rows @ rows.T).tolist() == pytest.approx([0, 2, 3])
    row = torch.tensor([[1.0, 1.0, 0.0]], dtype=torch.float64)
    assert without(step, row, row @ row.T).tolist() == pytest.approx([-0.5, 0.5, 3])


def test_a_step_without_directions_is_the_least_squares_residual():
    generator = torch.Generator().manual_seed(0)
    rows, step = torch.randn(6, 200, generator=generator), torch.randn(200, generator=generator)
    rows[5] = rows[0] - 2 * rows[1]  # but for rounding to float32
    rows = rows.double()
    span = rows[:5].T
    expected = step.double() - span @ torch.linalg.lstsq(span, step.double()[:, None]).solution[:, 0]
    torch.testing.assert_close(without(step, rows, rows @ rows.T).double(), expected, rtol=0, atol=1e-5)


def recorded_steps(checkpoint, folder, monkeypatch, config):
    """The gradients that each step of a training is made orthogonal to, and the steps that it then takes."""
    seen, start, end = [], OrthogonalSteps.on_pre_optimizer_step, OrthogonalSteps.on_optimizer_step

    def before(self, *arguments, **kwargs):
        start(self, *arguments, **kwargs)
        place = len(seen) % len(self.kept)  # this step's
        seen.append([self.kept.roll(-1 - place, dims=0), self.before])  # the oldest first

    def after(self, *arguments, **kwargs):
        plain = parameters_to_vector(self.trained().values()).detach() - self.before
        end(self, *arguments, **kwargs)
        seen[-1] += [plain, parameters_to_vector(self.trained().values()).detach() - self.before]

    monkeypatch.setattr(OrthogonalSteps, "on_pre_optimizer_step", before)
    monkeypatch.setattr(OrthogonalSteps, "on_optimizer_step", after)
    model = JanusModel.load(checkpoint, MODEL)
    post_train(model, TRAINING_SET, CODES, config, 0, folder, candidates=CANDIDATES)
    return seen


@pytest.mark.parametrize("config", [SFT, DPO], ids=["sft", "dpo"])
@pytest.mark.parametrize("quantities", [["verdict"], ["verdict", "caption"]], ids="+".join)
def test_no_step_of_a_training_moves_the_understanding_of_its_batch(
    checkpoint, tmp_path, monkeypatch, config, quantities
):
    """First-order changes of every example, of Adam's step as it would have been and as it is."""
    config = {**config, "orthogonal_to": {"quantities": quantities, "examples": 3, "batches": 2}, "epochs": 3}
    steps = recorded_steps(checkpoint, tmp_path, monkeypatch, {**config, "checkpoint_every_minutes": 0})
    assert not list(tmp_path.glob("checkpoint-*"))  # which could not be gone on from
    assert len(steps) == 3
    for batches, _, plain, taken in steps:
        gradients = batches.flatten(0, 1)
        assert gradients.shape[0] == 2 * 3 * len(quantities)
        length = gradients.norm(dim=1) * taken.double().norm()
        assert ((gradients @ taken.double()).abs() < 1e-7 * length).all()
        assert ((gradients @ plain.double()).abs() > 1e-3 * length).any()
    for before, after in pairwise(steps):  # each step has a batch of its own, and remembers the one before
        assert torch.equal(before[0][1], after[0][0]) and not torch.equal(before[0][1], after[0][1])


def test_the_verdicts_themselves_change_by_what_is_of_second_order(checkpoint):
    """Half a projected step, a quarter of the change; half a plain step, half of it. In float64, on the logits themselves."""
    model = JanusModel.load(checkpoint, MODEL)
    model.image_policy("language_model")
    model.model.double()
    hook = OrthogonalSteps(model, CANDIDATES, CODES, {"quantities": ["verdict"], "examples": 8, "batches": 1}, 0)
    gradients, parameters = hook.gradients(0), hook.trained().values()
    order = named_rng(0, "orthogonal/0").choice(8, 8, replace=False)
    codes = torch.from_numpy(CODES[order]).long()
    images, prompts = model.decode_images(codes), [PROMPTS[row] for row in order]
    start = parameters_to_vector(parameters).detach().clone()

    @torch.no_grad()
    def change(step):
        before = model.alignment_logits(images, prompts)
        vector_to_parameters(start + step, parameters)
        after = model.alignment_logits(images, prompts)
        vector_to_parameters(start, parameters)
        return (after - before).abs().mean().item()

    direction = torch.randn(len(start), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    direction = 0.1 * (direction / direction.norm() + gradients.mean(dim=0) / gradients.mean(dim=0).norm())
    projected = without(direction, gradients, gradients @ gradients.T)
    assert change(direction) / change(direction / 2) == pytest.approx(2, abs=0.3)
    assert change(projected) / change(projected / 2) == pytest.approx(4, abs=0.6)
    assert change(projected / 2) < 0.1 * change(direction / 2)


@pytest.mark.parametrize("arm", ["i_lower", "i_upper", "i_attention", "i_mlp", "i_no_embedding"])
def test_a_frozen_group_stays_and_the_others_move(checkpoint, tmp_path, arm):
    names = {
        "i_lower": ("layers.0.", "layers.1."),
        "i_upper": ("layers.2.", "layers.3."),
        "i_attention": ("self_attn.",),
        "i_mlp": (".mlp.",),
        "i_no_embedding": ("layers.", "language_model.norm."),
    }[arm]
    modules = load_stage("post_training", "tiny", experiment=arm)["trained_modules"]
    model, untouched = JanusModel.load(checkpoint, MODEL), JanusModel.load(checkpoint, MODEL)
    post_train(model, TRAINING_SET, CODES, {**SFT, "epochs": 1, "trained_modules": modules}, 0, tmp_path)
    before = dict(untouched.model.named_parameters())
    moved = {name for name, value in model.model.named_parameters() if not torch.equal(value, before[name])}
    shared = [name for name in before if name.startswith("model.language_model.")]
    assert moved == {name for name in shared if any(part in name for part in names)}


def test_too_few_candidates_are_one_sentence(model):
    with pytest.raises(SystemExit, match="lower post_training.orthogonal_to.examples"):
        OrthogonalSteps(model, CANDIDATES, CODES, {"quantities": ["verdict"], "examples": 9}, 0)


@pytest.fixture(scope="module")
def metrics():
    return intervention_runs(["i_separate", "i_orthogonal", "i_upper", "i_orthogonal_swapped"])


def overall(metrics, method, metric):
    rows = metrics[(metrics["method"] == method) & (metrics["metric"] == metric) & (metrics["subtask"] == "overall")]
    return rows.set_index("seed")["value"]


def test_the_figure_shows_every_arm_that_is_planned():
    for preset in ("tiny", "full"):
        planned = set(load_paper(preset)["figures"]["interventions"]["experiments"])
        rows = pd.DataFrame({"method": [*planned, "sft"]})
        assert set().union(*(interventions.arms_of(plain, rows) for plain in interventions.PLAIN)) == planned | {"sft"}


def test_arms_are_compared_with_their_plain_training_run_by_run(metrics):
    means, models = interventions.means_data(metrics), [f"base {seed % 3}" for seed in range(5)]
    means = means[means["seed"].isna()].set_index(["method", "metric"])
    for arm, plain in (("i_orthogonal", "sft"), ("i_upper", "sft"), ("i_orthogonal_swapped", "sft_swapped")):
        for metric in interventions.CHANGES:
            paired = 100 * (overall(metrics, arm, metric) - overall(metrics, plain, metric))
            row = means.loc[(arm, metric)]
            assert row["difference"] == pytest.approx(paired.mean(), abs=1e-10)
            expected = cluster_bootstrap_ci(paired, models)
            assert row[["difference_low", "difference_high"]].tolist() == pytest.approx(list(expected), abs=1e-10)
            change = 100 * (overall(metrics, arm, metric) - overall(metrics, "pretrained", metric))
            assert row["value"] == pytest.approx(change.mean())


def test_changed_verdicts_are_counted_and_none_change_without_sharing(metrics):
    means = interventions.means_data(metrics)
    separate = means[means["method"] == "i_separate"].set_index("metric")
    for metric in ("changed verdicts", "balanced_accuracy", "probe_false_positive_rate"):
        assert (separate.loc[metric, "value"] == 0).all()
    counts = sum(overall(metrics, "sft", f"triple_{triple}") for triple in ("001", "010", "101", "110"))
    found = means[(means["method"] == "sft") & (means["metric"] == "changed verdicts") & means["seed"].notna()]
    images = metrics.query("method == 'sft' and metric == 'triple_000' and subtask == 'overall'").set_index("seed")["n"]
    assert found.set_index("seed")["value"].to_dict() == pytest.approx((100 * counts / images).to_dict())
    wins = interventions.win_rate_data(metrics).set_index("method")
    assert wins.loc["sft", "n"] == counts.sum() and wins.loc["i_separate", "n"] == 0


def test_the_figure_is_the_same_bytes_twice_and_draws_from_one_run_of_one_arm(metrics, tmp_path):
    for copy in "ab":
        save(*interventions.draw(metrics), tmp_path / copy)
    for suffix in (".pdf", ".png", ".csv"):
        assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()
    single = metrics[(metrics["seed"] == 0) & metrics["method"].isin(["pretrained", "sft", "i_orthogonal"])]
    save(*interventions.draw(single), tmp_path / "single")
    data = pd.read_csv(tmp_path / "single.csv")
    assert data.loc[data["part"] == "changes", ["low", "difference_low"]].isna().all(axis=None)
