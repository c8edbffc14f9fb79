"""The measured kernel against plain loops, first order against real steps, and what its figures and table show."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from settings import DPO, MODEL, SFT
from torch.nn.utils import parameters_to_vector

from replication.dynamics.blocks import alignment, block_of, estimates, sketch
from replication.dynamics.gradients import (
    QUANTITIES,
    Pairs,
    directional_derivatives,
    parts_of,
    per_example_gradients,
    sizes_of,
    trained_parameters,
)
from replication.dynamics.kernel import CROSSED, GROUPS, draw_examples, measure
from replication.dynamics.steps import batch_loss, changes, optimizer_steps
from replication.dynamics.summary import corrected_from_others, first_order, proxy_correlations
from replication.figures import fig7_dynamics, kernel
from replication.models.tiny import CODEBOOK_SIZE
from replication.style import save
from replication.tables import tab_kernel
from replication.tables.writing import save_table

PROMPTS = ["an image of a triangle", "a picture of a striped purple triangle", "a red circle left of a blue square"]
CODES = torch.from_numpy(np.random.default_rng(0).integers(CODEBOOK_SIZE, size=(6, 36)))
SAMPLES = pd.DataFrame({"prompt": PROMPTS, "chosen": [3, 4, 5], "rejected": [0, 1, 2]})


@pytest.fixture
def reduced(model):
    """Two layers in float64, its parameters and three pairs."""
    language_model = model.model.model.language_model
    language_model.layers = language_model.layers[:2]
    model.model.double()
    images = np.random.default_rng(1).integers(256, size=(3, 24, 24, 3), dtype=np.uint8)
    return model, trained_parameters(model, "language_model"), Pairs(PROMPTS, CODES[:3], images)


def loop_gradients(model, quantity, pairs, index):
    """name -> gradient of one pair, by backward() on a batch of one, as anyone would write it."""
    model.model.zero_grad()
    prompt, image = [pairs.prompts[index]], pairs.images[index : index + 1]
    if quantity == "generation":
        value = model.image_log_probs(prompt, pairs.codes[index : index + 1])
    elif quantity == "caption":
        value = model.prompt_log_probs(image, prompt)
    else:
        value = model.alignment_logits(image, prompt)
    value.sum().backward()
    return {name: p.grad.clone() for name, p in model.model.named_parameters() if p.grad is not None}


def test_kernels_equal_brute_force_loops(reduced):
    model, parameters, pairs = reduced
    sizes, parts = sizes_of(parameters), parts_of(parameters)
    gradients = {name: per_example_gradients(model, parameters, name, pairs) for name in QUANTITIES}
    loops = {name: [loop_gradients(model, name, pairs, index) for index in range(3)] for name in QUANTITIES}
    for left, right in CROSSED.values():
        block = block_of(gradients[left], gradients[right], sizes)
        for i in range(3):
            for j in range(3):
                one, other = loops[left][i], loops[right][j]
                for part, text in (
                    ("all", ""),
                    ("layer 1", "layers.1."),
                    ("mlp", "mlp"),
                    ("embedding", "embed_tokens"),
                ):
                    expected = sum((one[name] * other[name]).sum() for name in one if name in other and text in name)
                    torch.testing.assert_close(block.kernel(parts[part])[i, j], expected, rtol=1e-5, atol=1e-8)
        own = block_of(gradients[left], gradients[right], sizes, paired=True).cosines(parts["all"])
        torch.testing.assert_close(own, block.cosines(parts["all"]).diagonal())


def test_parts_cover_the_trained_parameters(reduced):
    _, parameters, _ = reduced
    parts = parts_of(parameters)
    layers = [number for part in ("embedding", "layer 0", "layer 1", "final norm") for number in parts[part]]
    kinds = [number for part in ("embedding", "attention", "mlp", "norms") for number in parts[part]]
    assert sorted(layers) == sorted(kinds) == parts["all"] == list(range(len(parameters)))
    assert parts["last layer"] == sorted(parts["layer 1"] + parts["final norm"])


@pytest.mark.parametrize("quantity", QUANTITIES)
def test_directional_derivatives_are_gradients_times_direction(reduced, quantity):
    model, parameters, pairs = reduced
    generator = torch.Generator().manual_seed(0)
    direction = torch.randn(sum(sizes_of(parameters)), generator=generator, dtype=torch.float64)
    expected = per_example_gradients(model, parameters, quantity, pairs) @ direction
    found = directional_derivatives(model, parameters, quantity, pairs, direction)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)  # transformers' norms are float32 inside


def test_first_order_converges_with_order_two(reduced):
    model, parameters, pairs = reduced
    batches = [SAMPLES] * 2
    steps, _ = optimizer_steps(model, parameters, batches, CODES, {**SFT, "learning_rate": 1e-4})
    start = parameters_to_vector(parameters.values()).detach().clone()
    for step in steps.values():
        moved = changes(model, parameters, pairs, step, [1.0, 0.5, 0.25])
        moved["error"] = (moved["actual"] - moved["predicted"]).abs()
        errors = moved.pivot(index=["quantity", "example"], columns="scale", values="error")
        orders = [np.log2(errors[1.0] / errors[0.5]), np.log2(errors[0.5] / errors[0.25])]
        assert np.median(orders[0]) == pytest.approx(2, abs=0.2) and np.median(orders[1]) == pytest.approx(2, abs=0.1)
        assert (moved["error"] < 0.2 * moved["actual"].abs().max()).all()
    assert torch.equal(parameters_to_vector(parameters.values()), start)


def test_steps_are_those_of_the_optimizers(reduced):
    model, parameters, pairs = reduced
    config = {**SFT, "learning_rate": 1e-3, "max_grad_norm": 1e9}
    batches = [SAMPLES.iloc[[2]], SAMPLES.iloc[[0, 1]]]
    steps, preconditioner = optimizer_steps(model, parameters, batches, CODES, config)
    own = Pairs(PROMPTS, CODES[3:], pairs.images)
    # Of the loss of each sample; tolerances are those of the norms of transformers, which are float32 inside.
    gradients = per_example_gradients(model, parameters, "generation", own) / -36
    first, second = gradients[2], gradients[:2].mean(dim=0)
    mean = (0.9 * 0.1 * first + 0.1 * second) / (1 - 0.9**2)
    root = ((0.999 * 0.001 * first**2 + 0.001 * second**2) / (1 - 0.999**2)).sqrt()
    torch.testing.assert_close(steps["adam"], -1e-3 * mean / (root + 1e-8), rtol=1e-3, atol=1e-7)
    torch.testing.assert_close(steps["sgd"], -second / second.norm() * steps["adam"].norm(), rtol=1e-3, atol=1e-7)
    assert (preconditioner[root == 0] == 0).all() and (root == 0).any()
    torch.testing.assert_close(preconditioner[root > 0], 1 / (root[root > 0] + 1e-8), rtol=1e-3, atol=0.0)


def test_one_step_is_a_row_of_kernels(reduced):
    """The change that SGD makes is the mean kernel with its batch, which is what the paper's proposition says."""
    model, parameters, pairs = reduced
    config = {**SFT, "max_grad_norm": 1e9}
    steps, _ = optimizer_steps(model, parameters, [SAMPLES], CODES, config)
    batch = per_example_gradients(model, parameters, "generation", Pairs(PROMPTS, CODES[3:], pairs.images))
    rate = steps["sgd"].norm() / (batch.mean(dim=0) / 36).norm()
    predicted = changes(model, parameters, pairs, steps["sgd"], [1.0])
    for quantity in QUANTITIES:
        block = block_of(per_example_gradients(model, parameters, quantity, pairs), batch, sizes_of(parameters)).kernel(
            parts_of(parameters)["all"]
        )
        found = predicted.loc[predicted["quantity"] == quantity, "predicted"].to_numpy()
        np.testing.assert_allclose(found, (rate / 36 * block.mean(dim=1)).numpy(), rtol=1e-6, atol=1e-10)


def test_dpo_loss_and_its_gradient_at_the_reference(reduced):
    model, parameters, pairs = reduced
    config = {**DPO, "beta": 0.3, "nll_weight": 0.5}
    loss = batch_loss(model, SAMPLES, CODES, config)
    nll = -model.image_log_probs(PROMPTS, CODES[3:]).mean()
    torch.testing.assert_close(loss.item(), math.log(2) + 0.5 * nll.item(), rtol=1e-6, atol=0.0)
    chosen, rejected = (
        per_example_gradients(model, parameters, "generation", Pairs(PROMPTS, codes, pairs.images)).mean(dim=0)
        for codes in (CODES[3:], CODES[:3])
    )
    found = parameters_to_vector(torch.autograd.grad(loss, list(parameters.values()), materialize_grads=True))
    torch.testing.assert_close(found, -0.15 * (chosen - rejected) - 0.5 * chosen / 36, rtol=1e-4, atol=1e-5)


def test_hand_worked_alignment():
    left, right = torch.tensor([[3.0, 4.0, 0.0], [0.0, 0.0, 0.0]]), torch.tensor([[3.0, 4.0, 12.0], [-4.0, 3.0, 0.0]])
    blocks = {"crossed": block_of(left, right, [2, 1]), "own": block_of(left, right, [2, 1], paired=True)}
    found = alignment(blocks, {"all": [0, 1], "layer 0": [0]}, ["a", "b"]).set_index(["block", "part", "group"])
    assert found.loc[("crossed", "all", "a"), "cosine"].item() == pytest.approx(25 / 65 / 2)
    assert found.loc[("crossed", "all", "all"), "cosine"].item() == pytest.approx(25 / 65 / 4)
    assert found.loc[("crossed", "layer 0", "all"), "cosine"].item() == pytest.approx(1 / 4)
    assert found.loc[("own", "all", "a"), "cosine"].item() == pytest.approx(25 / 65)
    assert found.loc[("own", "all", "b"), "cosine"].item() == 0  # a gradient of 0 has no direction
    assert found.loc[("crossed", "all", "all"), "ratio"].item() == pytest.approx(2.5 / 9)
    assert found["pairs"].tolist() == [4, 2, 2, 4, 2, 1, 1, 2]


def test_sketches_keep_inner_products_on_average_and_with_the_promised_error():
    gradients = torch.randn(4, 3000, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    gradients[1] += 0.5 * gradients[0]
    exact = gradients @ gradients.T
    found = torch.stack([(s := sketch(gradients, 256, seed)) @ s.T for seed in range(200)])
    scale = exact.diagonal().sqrt()
    errors = (found - exact) / (scale[:, None] * scale)
    assert errors.mean(dim=0).abs().max() < 4 * 256**-0.5 / 200**0.5 * 1.5
    assert errors[:, 0, 2].std() == pytest.approx(256**-0.5, rel=0.2)
    assert torch.equal(sketch(gradients, 256, 7), sketch(gradients, 256, 7))


def test_estimators_are_compared_with_the_exact_kernel():
    generator = torch.Generator().manual_seed(0)
    left, right = torch.randn(20, 500, generator=generator), torch.randn(10, 500, generator=generator)
    right[:5] += left[:5]
    parts = {"all": [0, 1], "last layer": [0, 1]}
    found = estimates({"b": block_of(left, right, [400, 100])}, {"b": (left, right)}, parts, [64, 100_000], 0)
    found = found.set_index("estimator")
    assert found.loc["last layer", "pearson"] == pytest.approx(1) and found.loc["last layer", "error"] == 0
    small, large = found.loc["random projection", "error"]
    assert large < 0.01 < small < 0.25


def verdict_table(prompts=30):
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {"prompt_id": np.repeat(range(prompts), 4), "subtask": "shape", "image": [0, 1, 2, 3] * prompts}
    )
    for column in ("truth", "before", "after"):
        table[column] = rng.integers(0, 2, len(table))
    return table, table["prompt_id"].map("prompt {}".format)


def test_examples_are_of_their_groups_and_other_prompts_are_others():
    verdicts, prompts = verdict_table()
    found = draw_examples(verdicts, prompts, 5, np.random.default_rng(1))
    again = draw_examples(verdicts, prompts, 5, np.random.default_rng(1))
    pd.testing.assert_frame_equal(found, again)
    for group, triple in GROUPS.items():
        members = found[found["group"] == group]
        rows = verdicts.iloc[members["row"]]
        assert (rows[["truth", "before", "after"]].to_numpy() == triple).all()
        everyone = (verdicts[["truth", "before", "after"]].to_numpy() == triple).all(axis=1).sum()
        assert len(members) == (everyone if group == "corrected" else min(5, everyone)) > 0
        assert (members["prompt"].to_numpy() == prompts.iloc[members["row"]].to_numpy()).all()
    unseen = found[found["group"] == "unseen"]
    assert len(unseen) == 5 and (unseen["prompt"].to_numpy() != prompts.iloc[unseen["row"]].to_numpy()).all()
    assert (found["prompt"] != found["other_prompt"]).all()


@pytest.fixture(scope="module")
def tables(checkpoint):
    """What the station writes for a model and a self-improved one, which are random here, in two invented runs."""
    from replication.models.janus import JanusModel

    torch.set_num_threads(1)
    prompts = pd.Series(np.repeat([*PROMPTS, "a green cross"], 6))
    columns = ["truth", "before", "after"]
    triples = [(0, 1, 0), (0, 1, 1), (1, 1, 1), (0, 0, 0), (0, 1, 0), (0, 1, 1)]
    verdicts = pd.DataFrame(triples * 4, columns=columns).assign(
        prompt_id=np.repeat(range(4), 6), subtask="shape", image=0
    )
    codes = np.random.default_rng(0).integers(CODEBOOK_SIZE, size=(24, 36)).astype(np.int16)
    samples = pd.DataFrame({"prompt": PROMPTS * 2, "chosen": range(6)})
    config = {"post_training": SFT, "adam_batches": 2, "step_scales": [1, 10], "sketch_sizes": [64], "sketch_seed": 0}
    runs = []
    for seed in range(2):
        model, trained = JanusModel.load(checkpoint, MODEL), JanusModel.load(checkpoint, MODEL)
        with torch.no_grad():
            trained.model.model.language_model.layers[0].mlp.down_proj.weight.mul_(1.1)
        rng = np.random.default_rng(seed)
        examples = draw_examples(verdicts, prompts, 2, rng)
        found = measure(model, trained, examples, samples, codes, codes, {**config, "batch_size": 8}, rng)
        names = {"experiment": "sft", "seed": seed, "model": f"embedded_janus-{seed}"}
        runs.append({name: table.assign(**names) for name, table in found.items()})
    sft = {name: pd.concat([run[name] for run in runs], ignore_index=True) for name in runs[0]}
    return {name: pd.concat([table, table.assign(experiment="dpo")], ignore_index=True) for name, table in sft.items()}


def test_the_station_measures_every_example(tables):
    examples, steps, pairs = (
        tables[name][tables[name]["seed"].eq(0) & tables[name]["experiment"].eq("sft")]
        for name in ("examples", "steps", "pairs")
    )
    assert len(steps) == len(examples) * 3 * 2 * 2 and len(pairs) == len(examples) * 4  # a batch of four
    assert examples.groupby("group").size().to_dict() == {
        "corrected": 8, "not_corrected": 2, "true_positive": 2, "true_negative": 2, "unseen": 2
    }  # fmt: skip
    assert (pairs[list(CROSSED)].abs() <= 1.001).all(axis=None) and examples.notna().all(axis=None)
    assert (examples["delta_generation"] != 0).all()
    whole = tables["alignment"].query("part == 'all' and model_at == 'before' and metric == 'plain' and seed == 0")
    for quantity in ("caption", "verdict"):  # what the claims read is what the figure shows the means of
        means = whole[(whole["block"] == f"own {quantity}-generation") & (whole["experiment"] == "sft")]
        means = means.set_index("group")["cosine"]
        assert means["all"] == pytest.approx(examples[f"own_{quantity}"].mean(), rel=1e-4)
        assert means["unseen"] == pytest.approx(
            examples.groupby("group")[f"own_{quantity}"].mean()["unseen"], rel=1e-4, abs=1e-6
        )


def test_figures_are_the_same_bytes_twice_and_the_table_reads(tables, tmp_path):
    for name, module in (("kernel", kernel), ("fig7_dynamics", fig7_dynamics)):
        for copy in "ab":
            save(*module.draw(tables), tmp_path / f"{name}_{copy}")
        for suffix in (".pdf", ".png", ".csv"):
            first, second = ((tmp_path / f"{name}_{copy}{suffix}").read_bytes() for copy in "ab")
            assert first == second and len(first) > 500
    single = {name: table[table["seed"] == 0] for name, table in tables.items()}
    save(*fig7_dynamics.draw(single), tmp_path / "single")
    save(*kernel.draw(single), tmp_path / "single_kernel")
    data = tab_kernel.table_data(tables)
    save_table(tab_kernel.layout(data), data, tmp_path / "table")
    text = (tmp_path / "table.md").read_text()
    assert "16 of 16" in text or "of 16" in text
    whole = tables["alignment"].query("part == 'all' and group == 'all' and model_at == 'before' and metric == 'plain'")
    expected = whole.query("block == 'caption-generation' and experiment == 'sft'")["cosine"].mean()
    shown = data[(data["section"] == "Cosine, before") & (data["row"] == "caption with generation")]
    assert shown["value"].tolist() == pytest.approx([expected] * 2)


def test_summaries_by_hand():
    names = {"experiment": "sft", "seed": 0, "model": "m"}
    steps = pd.DataFrame({"actual": [1.0, 2.0, 3.0], "predicted": [1.0, 2.0, -4.0]})
    steps = steps.assign(optimizer="sgd", scale=1, quantity="caption", **names)
    assert first_order(steps)[["r2", "sign_agreement"]].iloc[0].tolist() == pytest.approx([1 - 49 / 2, 2 / 3])
    pairs = pd.DataFrame(
        {"text_similarity": [1, 2, 3], "image_similarity": [3, 2, 1], "generation-generation": [-0.3, 0.1, 0.2]}
    )
    rho = proxy_correlations(pairs.assign(**names)).iloc[0]
    assert rho["text signed"] == pytest.approx(1) and rho["image signed"] == pytest.approx(-1)
    assert rho["text size"] == pytest.approx(-0.5)
    examples = pd.DataFrame(
        {
            "group": ["corrected", "corrected", "not_corrected", "not_corrected", "true_positive"],
            "delta_generation": [-3.0, -1.0, -2.0, 1.0, -9.0],
            "delta_caption": [1.0, 1.0, -1.0, -1.0, 0.0],
        }
    )
    found = corrected_from_others(examples.assign(**names)).set_index("quantity")
    assert found["auc"].to_dict() == {"generation": 0.75, "caption": 0.0}
