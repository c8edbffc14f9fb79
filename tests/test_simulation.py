"""The simulated branches: closed forms against autodiff and against the paper's sums written out, and what the dials must do."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn.functional import logsigmoid

from replication.config import load_stage
from replication.dynamics import branches, propositions, simulation
from replication.figures import simulation as figure
from replication.style import save

CONFIG = {**load_stage("simulation", "tiny"), "worlds": 2, "steps": [1, 10, 20], "sharing": [0.0, 0.5, 1.0]}
ANGLE = 40.0


@pytest.fixture(scope="module")
def world():
    return branches.new_world(CONFIG, 0)


@pytest.fixture(scope="module")
def table():
    return simulation.simulate(CONFIG)


def weights_of(world, seed=0):
    return 0.5 * np.random.default_rng(seed).standard_normal(world.features.shape[-1])


def torch_log_probs(world, parameters, sharing, angle=ANGLE):
    """log pi(x|y) and log pi(y|x) from (t_shared, t_g, t_u), one image and prompt at a time."""
    shared, own_generation, own_understanding = parameters
    w_g = sharing**0.5 * shared + (1 - sharing) ** 0.5 * own_generation
    w_u = sharing**0.5 * shared + (1 - sharing) ** 0.5 * own_understanding
    f, b = torch.from_numpy(world.features), torch.from_numpy(world.generation_logits)
    generation, logits = [], []
    turn = np.radians(angle)
    for y in range(len(world.prompts)):
        tokens = torch.log_softmax(b[y] + f[y] @ w_g, dim=1)
        for x, (first, second) in enumerate(world.images):
            generation.append(tokens[0, first] + tokens[1 + first, second])
            h = np.cos(turn) * (f[y, 0, first] + f[y, 1 + first, second])
            h = h + np.sin(turn) * torch.from_numpy(world.unrelated_features[x, y])
            logits.append(world.understanding_logits[x, y] + h @ w_u)
    shape = len(world.prompts), len(world.images)
    return torch.stack(generation).reshape(shape), torch.log_softmax(torch.stack(logits).reshape(shape), dim=0).T


def losses(world, sharing, reference, pair):
    """SFT and DPO losses on one (prompt, chosen, rejected) as functions of the parameters."""
    prompt, chosen, rejected = pair

    def sft(parameters):
        return -torch_log_probs(world, parameters, sharing)[0][prompt, chosen]

    def dpo(parameters):
        ratio = (torch_log_probs(world, parameters, sharing)[0] - torch.from_numpy(reference))[prompt]
        return -logsigmoid(CONFIG["beta"] * (ratio[chosen] - ratio[rejected]))

    return {"sft": sft, "dpo": dpo}


def pull_of(method, world, generation, reference, pair):
    prompt, chosen, rejected = pair
    images, pairs = np.zeros(generation.shape), np.zeros((*generation.shape, len(world.images)))
    images[prompt, chosen], pairs[prompt, chosen, rejected] = 1, 1
    return images if method == "sft" else branches.dpo_weights(generation, reference, pairs, CONFIG["beta"])


@pytest.mark.parametrize("method", ["sft", "dpo"])
@pytest.mark.parametrize("sharing", [0.0, 0.3, 1.0])
def test_gradients_and_predicted_changes_are_those_of_autodiff(world, method, sharing):
    """A step on all three blocks of parameters moves w_g by the closed form and w_u by `sharing` times that; both branches
    change at the predicted speed."""
    pair = (4, 3, 20)
    w = weights_of(world)
    blocks = torch.from_numpy(np.stack([sharing**0.5 * w, (1 - sharing) ** 0.5 * w, 0.2 * weights_of(world, 1)]))
    reference = branches.generation_log_probs(world, np.zeros_like(w))
    loss = losses(world, sharing, reference, pair)[method]
    blocks.requires_grad_(True)
    (gradient,) = torch.autograd.grad(loss(blocks), blocks)
    mix = np.array([[sharing, 1 - sharing, 0], [sharing, 0, 1 - sharing]]) ** 0.5
    w_g, w_u = mix @ blocks.detach().numpy()
    tokens = branches.token_log_probs(world, w_g)
    pull = pull_of(method, world, world.along_image(tokens), reference, pair)
    residuals = branches.residuals(world, tokens, pull)
    closed = np.tensordot(residuals, world.features, axes=3)
    moved = mix @ gradient.numpy()
    np.testing.assert_allclose(moved[0], closed, atol=1e-13)
    np.testing.assert_allclose(moved[1], sharing * closed, atol=1e-13)
    assert (gradient[2] == 0).all()

    speeds = torch.autograd.functional.jvp(
        lambda p: torch_log_probs(world, p, sharing), blocks.detach(), -gradient.detach()
    )[1]
    generation = propositions.generation_change(world, tokens, residuals, 1.0)
    before = branches.understanding_log_probs(world, w_u, ANGLE)
    understanding = propositions.branch_understanding_change(world, before, residuals, 1.0, sharing, ANGLE)
    np.testing.assert_allclose(generation, speeds[0].numpy(), atol=1e-12)
    np.testing.assert_allclose(understanding, speeds[1].numpy(), atol=1e-12)


def test_training_follows_all_parameters_by_autodiff(world):
    """Ten steps of DPO on three blocks that start at 0: understanding ends at `sharing` times the weights of generation."""
    sharing, config = 0.3, {**CONFIG, "steps": [3]}
    chosen, rejected = simulation.supervise(world, "own")
    parameters = torch.zeros((3, world.features.shape[-1]), dtype=torch.float64, requires_grad=True)
    reference = torch.from_numpy(branches.generation_log_probs(world, np.zeros(world.features.shape[-1])))
    pairs = torch.from_numpy(chosen[:, :, None] * rejected[:, None, :] / len(chosen))
    for _ in range(3):
        ratio = torch_log_probs(world, parameters, sharing)[0] - reference
        loss = -(pairs * logsigmoid(config["beta"] * (ratio[:, :, None] - ratio[:, None, :]))).sum()
        (gradient,) = torch.autograd.grad(loss, parameters)
        parameters = (parameters - config["rates"]["dpo"] * gradient).detach().requires_grad_(True)
    weights = simulation.train(world, chosen, rejected, "dpo", config)[3]
    generation, understanding = (found.detach().numpy() for found in torch_log_probs(world, parameters, sharing))
    np.testing.assert_allclose(branches.generation_log_probs(world, weights), generation, atol=1e-10)
    np.testing.assert_allclose(
        branches.understanding_log_probs(world, sharing * weights, ANGLE), understanding, atol=1e-10
    )


def test_proposition_1_is_the_papers_double_sum(world):
    """Both formulas written out with blocks K_{k,r} of V x V and w, for one post-training pair."""
    trained, image, rate = 2, 17, 0.1
    w = weights_of(world)
    tokens = branches.token_log_probs(world, w)
    generation = world.along_image(tokens)
    pull = np.zeros(generation.shape)
    pull[trained, image] = 1
    change = propositions.generation_change(world, tokens, branches.residuals(world, tokens, pull), rate)
    stated = propositions.stated_understanding_change(change, generation)

    def contexts(x):
        first, second = world.images[x]
        return [(0, first), (1 + first, second)]

    def bracket(y, x):
        total = 0.0
        for context, token in contexts(x):
            for trained_context, trained_token in contexts(image):
                kernel = world.features[y, context] @ world.features[trained, trained_context].T
                identity = np.eye(len(kernel))
                left = identity[token] - np.exp(tokens[y, context])
                right = np.exp(tokens[trained, trained_context]) - identity[trained_token]
                total += left @ kernel @ right
        return total

    for y, x in [(2, 17), (2, 5), (0, 17), (8, 30)]:
        assert change[y, x] == pytest.approx(-rate * bracket(y, x), rel=1e-10)
        likelihoods = np.exp(generation[:, x])
        w_t = likelihoods / likelihoods.sum()
        others = [i for i in range(len(world.prompts)) if i != y]
        expected = -rate * sum(w_t[i] * (bracket(y, x) - bracket(i, x)) for i in others)
        assert stated[x, y] == pytest.approx(expected, rel=1e-10)


def test_errors_of_one_step_are_of_second_order_and_of_first_where_the_statement_misses_the_branch(table):
    rows = table[(table["part"] == "one_step") & table["metric"].isin(figure.ERRORS) & (table["value"] > 0)]
    slopes = {
        key: np.polyfit(np.log(group["rate"]), np.log(group["value"]), 1)[0]
        for key, group in rows.groupby(["metric", "method", "sharing", "seed"], dropna=False)
    }
    assert len(slopes) == 2 * 2 * (1 + 1 + 2 + 3)
    for (metric, *_), slope in slopes.items():
        assert slope == pytest.approx(1 if metric == "stated_branch" else 2, abs=0.1)


def test_nothing_shared_changes_nothing_in_understanding(table):
    rows = table[(table["part"] == "training") & (table["sharing"] == 0) & (table["metric"] == "understanding")]
    assert (rows.groupby(["seed", "method", "supervision"])["value"].nunique() == 1).all()
    generation = table[(table["part"] == "training") & (table["sharing"] == 0) & (table["metric"] == "generation")]
    assert (generation.groupby(["seed", "method", "supervision"])["value"].nunique() == 4).all()
    one = table[(table["part"] == "one_step") & (table["metric"] == "branch") & (table["sharing"] == 0)]
    assert len(one) and (one["value"] == 0).all()


def test_the_bridge_holds_for_a_bayes_consistent_model_and_not_when_prompts_change_their_prior(world):
    """dU = dG - dlog pi(x), from the joint distribution by arithmetic; a prior that moves adds its own dlog pi(y)."""
    start = branches.generation_log_probs(world, np.zeros(world.features.shape[-1]))
    after = branches.generation_log_probs(world, weights_of(world))
    change = (branches.bayes_log_probs(after) - branches.bayes_log_probs(start)).T
    joint, joint_after = (np.exp(log) / len(world.prompts) for log in (start, after))
    bridge = (after - start) - np.log(joint_after.sum(axis=0) / joint.sum(axis=0))
    assert np.abs(change).max() > 0.5
    np.testing.assert_allclose(change, bridge, atol=1e-12)
    prior = np.arange(1, 10)[:, None] / 45
    joint_after = np.exp(after) * prior
    understanding = np.log(joint_after / joint_after.sum(axis=0)) - np.log(joint / joint.sum(axis=0))
    bridge = (after - start) - np.log(joint_after.sum(axis=0) / joint.sum(axis=0))
    np.testing.assert_allclose(understanding - bridge, np.broadcast_to(np.log(9 * prior), bridge.shape), atol=1e-12)


def test_squeezing_by_hand():
    """One prompt, three tokens, a weight per logit. DPO with alpha = 0 prefers image (0, 0) to (1, 2).

    First token: the softmax terms of both images cancel, dz = eta p (e_0 - e_1) with p = beta / 2. After the rejected first
    token the gradient is negative alone: dz = eta p (pi - e_2), so of pi = (.7, .2, .1) the likeliest token gains, .26 eta p,
    and the others lose, .24 and 1.34 eta p. After token 2, which neither image has, nothing happens.
    """
    second = np.log([[0.1, 0.3, 0.6], [0.7, 0.2, 0.1], [0.5, 0.25, 0.25]])
    logits = np.concatenate([np.log([[0.2, 0.5, 0.3]]), second])[None]
    images = np.argwhere(np.ones((3, 3)))
    features = np.eye(12).reshape(1, 4, 3, 12)
    world = branches.World(np.array([[0, 0]]), images, features, np.zeros((9, 1, 12)), logits, np.zeros((9, 1)))
    tokens = branches.token_log_probs(world, np.zeros(12))
    pair = np.zeros((1, 9, 9))
    pair[0, 0, 5] = 1
    generation = world.along_image(tokens)
    pull = branches.dpo_weights(generation, generation, pair, 0.2)
    step = -branches.residuals(world, tokens, pull)[0] / 0.1
    np.testing.assert_allclose(step, [[1, -1, 0], [0.9, -0.3, -0.6], [0.7, 0.2, -0.9], [0, 0, 0]], atol=1e-12)
    change = np.log(np.exp(logits[0, 2] + 1e-6 * step[2])) - np.log(np.exp(logits[0, 2] + 1e-6 * step[2]).sum())
    np.testing.assert_allclose((change - logits[0, 2]) / 1e-6, [0.26, -0.24, -1.34], atol=1e-5)


def test_dpo_ends_below_its_start_for_chosen_images_and_an_nll_term_prevents_it():
    world = branches.new_world(CONFIG, 1)
    config = {**CONFIG, "steps": [5, 300]}
    trained = {("own", "dpo"): simulation.train(world, *simulation.supervise(world, "own"), "dpo", config)}
    rows = pd.DataFrame(simulation.squeezing(world, trained, config))
    found = rows.pivot(index=["nll_weight", "step"], columns="metric", values="value")
    assert found.loc[(0, 300), "chosen"] < found.loc[(0, 0), "chosen"] < found.loc[(0, 5), "chosen"]
    assert found.loc[(0.05, 300), "chosen"] > found.loc[(0.05, 0), "chosen"]
    assert found.loc[(0, 300), "likeliest"] > found.loc[(0.05, 300), "likeliest"] > found.loc[(0, 0), "likeliest"]


def test_features_turn_by_the_angle_and_keep_their_length(world):
    aligned, other = world.aligned_features, world.unrelated_features
    lengths = np.linalg.norm(aligned, axis=2)
    np.testing.assert_allclose(np.linalg.norm(other, axis=2), lengths)
    np.testing.assert_allclose((aligned * other).sum(axis=2), 0, atol=1e-12)
    weights = weights_of(world)
    turned = (0.6 * aligned + 0.8 * other) @ weights
    np.testing.assert_allclose(
        world.understanding_logits_change(weights, np.degrees(np.arccos(0.6))), turned, atol=1e-12
    )


def test_worlds_and_supervision_by_counting(world):
    assert world.right.sum(axis=0).tolist() == [4] * 9 and world.right.sum(axis=1).tolist() == [1] * 36
    assert (
        tuple(world.images[10]) == (1, 4) and world.matches[10].max() == 2
    )  # shape 1, colour 4 % 3 = 1: prompt (1, 1)
    assert world.right[10].argmax() == 4
    accepted = simulation.accepted(world)
    chosen, rejected = simulation.supervise(world, "own")
    assert (chosen[~accepted] == 0).all() and (rejected[accepted] == 0).all()
    assert set(np.round(chosen.sum(axis=1), 12)) <= {0.0, 1.0}
    for swapped, own in zip(simulation.supervise(world, "swapped"), (rejected, chosen), strict=True):
        np.testing.assert_array_equal(swapped, own)
    mistaken, others_rejected = simulation.supervise(world, "mistaken")
    assert (mistaken[world.right.T | ~accepted] == 0).all() and mistaken.any()
    np.testing.assert_array_equal(others_rejected, rejected)
    renamed, _ = simulation.supervise(world, "renamed")
    np.testing.assert_array_equal(renamed[0], chosen[4])  # prompt (0, 0) gets the images of (1, 1)
    np.testing.assert_array_equal(renamed[8], chosen[0])  # and (2, 2) those of (0, 0)


def test_two_runs_and_two_draws_give_the_same_bytes(table, tmp_path):
    small = {**CONFIG, "worlds": 1}
    again = simulation.simulate(small)
    pd.testing.assert_frame_equal(again, table[table["seed"] == 0].reset_index(drop=True))
    for copy in ("first", "second"):
        save(*figure.draw(table), tmp_path / copy)
    for suffix in (".pdf", ".png", ".csv"):
        first, second = ((tmp_path / f"{copy}{suffix}").read_bytes() for copy in ("first", "second"))
        assert first == second and len(first) > 500


def test_the_figure_shows_what_was_simulated(table):
    _, shown = figure.draw(table)
    changes = shown[(shown["part"] == "changes") & (shown["metric"] == "understanding")]
    one = changes[(changes["sharing"] == 1) & (changes["angle"] == 0) & (changes["step"] == 20)]
    one = one[(one["method"] == "sft") & (one["supervision"] == "swapped")]
    rows = table[(table["part"] == "training") & (table["metric"] == "understanding") & (table["method"] == "sft")]
    rows = rows[(rows["supervision"] == "swapped") & (rows["sharing"] == 1) & (rows["angle"] == 0)]
    by_step = rows.groupby("step")["value"].mean()
    assert one["mean"].item() == pytest.approx(by_step[20] - by_step[0]) and one["worlds"].item() == 2
    with pytest.raises(SystemExit, match="no step 10; put it in simulation.steps"):
        figure.draw(table[table["step"] != 10])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"sharing": [0.0, 1.2]}, "must be numbers from 0 .nothing. to 1 .everything."),
        ({"angles": [0, 270]}, "must be degrees from 0"),
        ({"worlds": 0}, "worlds >= 1"),
        ({"one_step_rates": [0.1]}, "must be two positive numbers or more"),
        ({"steps": []}, "must be whole numbers from 1 on"),
        ({"steps": [0.5]}, "must be whole numbers from 1 on"),
    ],
)
def test_a_wrong_setting_is_one_sentence(change, sentence):
    with pytest.raises(SystemExit, match=sentence) as error:
        simulation.simulate(CONFIG | change)
    assert "\n" not in str(error.value)


def test_command_lines_write_their_files_without_torch(tmp_path):
    config = json.dumps({**CONFIG, "steps": [10, 11]})
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['x', '--config', {config!r}, '--output', {str(tmp_path / 'simulation.csv')!r}]\n"
        "runpy.run_module('replication.dynamics.simulation', run_name='__main__')\n"
        f"sys.argv = ['x', '--inputs', {str(tmp_path / 'simulation.csv')!r}, '--output', {str(tmp_path / 'figure')!r}]\n"
        "runpy.run_module('replication.figures.simulation', run_name='__main__')\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {
        "simulation.csv",
        "figure.pdf",
        "figure.png",
        "figure.csv",
    }
