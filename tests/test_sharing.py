"""The dial of sharing: whose parameters understanding has, what is left of the kernel, and what figure and table say of families."""

import numpy as np
import pandas as pd
import pytest
import torch
from settings import FAMILIES
from synthetic_runs import intervention_runs, renamed, run
from torch.nn.functional import cosine_similarity

from replication.config import load_stage
from replication.dynamics.blocks import block_of
from replication.dynamics.copies import share
from replication.dynamics.gradients import Pairs, parts_of, per_example_gradients, sizes_of, trained_parameters
from replication.dynamics.sharing import measure, shared_parts
from replication.families import by_family, read_families
from replication.figures import fig2_nonunified, fig3_weak_generation, sharing
from replication.models.interface import load_model
from replication.models.tiny import CODEBOOK_SIZE
from replication.statistics import cluster_bootstrap_ci
from replication.style import save
from replication.tables import claims_families, tab1_main, tab_sharing
from replication.tables.writing import save_table

PROMPTS = ["an image of a triangle", "a picture of a striped purple triangle", "a red circle left of a blue square"]
CODES = torch.from_numpy(np.random.default_rng(0).integers(CODEBOOK_SIZE, size=(6, 36)))
IMAGES = np.random.default_rng(1).integers(256, size=(3, 24, 24, 3), dtype=np.uint8)
VARIANTS = [f"i_{kind}{end}" for kind in ("separate", "shared_1", "shared_3") for end in ("", "_swapped")]
ALIGNMENTS = {0: 0.0, 1: 0.01, 2: 0.02, 3: 0.03, 4: 0.04}  # of Janus; Emu3's are ten times as large


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture
def pretrained_and_trained(checkpoint, family):
    """The model of a checkpoint, and one whose language model has moved."""
    torch.set_num_threads(1)
    models = [load_model(checkpoint, FAMILIES[family]) for _ in range(2)]
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in trained_parameters(models[1], "language_model").values():
            value.add_(0.02 * torch.randn(value.shape, generator=generator))
    return models


@pytest.mark.parametrize("variant", ["i_shared_1", "i_shared_2", "i_shared_3"])
def test_understanding_has_the_trained_parameters_below_and_the_pretrained_above(pretrained_and_trained, variant):
    pretrained, trained = pretrained_and_trained
    before = {name: value.clone() for name, value in pretrained.model.named_parameters()}
    after = dict(trained.model.named_parameters())
    number = int(variant.split("_")[2])
    share(pretrained, trained, load_stage("copies", "tiny", experiment=variant)["shared_parameters"])
    for name, value in pretrained.model.named_parameters():
        below = "embed_tokens" in name or any(f"layers.{layer}." in name for layer in range(number))
        taken = below and name in trained_parameters(trained, "language_model")
        assert torch.equal(value, after[name] if taken else before[name]), name
        assert not taken or not torch.equal(value, before[name])


def test_with_all_shared_the_verdicts_are_those_of_the_trained_model(pretrained_and_trained):
    pretrained, trained = pretrained_and_trained
    with torch.no_grad():
        before, wanted = (model.alignment_logits(IMAGES, PROMPTS) for model in pretrained_and_trained)
        share(pretrained, trained, "language_model")
        assert torch.equal(pretrained.alignment_logits(IMAGES, PROMPTS), wanted) and not torch.equal(before, wanted)


def test_the_kernel_of_copies_is_that_of_two_models_side_by_side(model):
    """Gradients over (shared, generation's copies, understanding's copies), with zeros where a branch reads nothing."""
    pairs, batch = Pairs(PROMPTS, CODES[:3], IMAGES), Pairs(PROMPTS[:2], CODES[3:5], IMAGES[:2])
    table = measure(model, pairs, batch, "language_model").set_index(["block", "shared_layers"])
    assert table["layers"].eq(4).all() and table.loc["verdict-generation", "pairs"].eq(6).all()
    parameters = trained_parameters(model, "language_model")
    sets = {"verdict": pairs, "generation": pairs, "batch": batch}
    flat = {
        name: per_example_gradients(model, parameters, name.replace("batch", "generation"), rows)
        for name, rows in sets.items()
    }
    names = [name for name, value in parameters.items() for _ in range(value.numel())]
    for number in range(5):
        below = [f"layers.{layer}." for layer in range(number)] + ["embed_tokens"]
        is_shared = torch.tensor(
            [number == 4 or (number > 0 and any(text in name for text in below)) for name in names]
        )

        def in_both(gradients, copies_first, is_shared=is_shared):
            shared, copies = gradients * is_shared, gradients * ~is_shared
            empty = torch.zeros_like(copies)
            return torch.cat([shared, *((copies, empty) if copies_first else (empty, copies))], dim=1)

        verdict, own, others = (in_both(flat[name], name != "verdict") for name in ("verdict", "generation", "batch"))
        found = cosine_similarity(verdict[:, None], others[None], dim=2)
        row = table.loc["verdict-generation", number]
        assert row["cosine"] == pytest.approx(found.mean().item(), abs=1e-5)
        assert row["absolute_cosine"] == pytest.approx(found.abs().mean().item(), abs=1e-5)
        own = cosine_similarity(verdict, own, dim=1).mean().item()
        assert table.loc["own verdict-generation", number]["cosine"] == pytest.approx(own, abs=1e-5)
    whole = block_of(flat["verdict"], flat["batch"], sizes_of(parameters)).cosines(parts_of(parameters)["all"])
    row = table.loc["verdict-generation", 4]
    assert (
        row["cosine"] == pytest.approx(whole.mean().item(), abs=1e-5)
        and table.loc["verdict-generation", 0]["cosine"] == 0
    )


def test_shared_parameters_grow_by_a_layer_at_a_time(model):
    parameters = trained_parameters(model, "language_model")
    names, parts = list(parameters), shared_parts(parameters)
    assert list(parts) == [0, 1, 2, 3, 4] and parts[0] == [] and sorted(parts[4]) == list(range(len(names)))
    for number in (1, 2, 3):
        added = {names[place] for place in set(parts[number]) - set(parts[number - 1])}
        assert {name for name in added if "embed_tokens" not in name} == {
            n for n in names if f"layers.{number - 1}." in n
        }
        assert any("embed_tokens" in name for name in added) == (number == 1)


def alignments(family, size, trainings=("sft", "dpo", "sft_swapped"), seeds=5):
    """Invented sharing.csv of a family, all runs in one."""
    rows = [
        (number, 4, block, value * size, -value * size, training, seed, f"{family}-{seed % 3}")
        for training in trainings
        for seed in range(seeds)
        for block in ("verdict-generation", "own verdict-generation")
        for number, value in ALIGNMENTS.items()
    ]
    columns = ["shared_layers", "layers", "block", "absolute_cosine", "cosine", "experiment", "seed", "model"]
    return pd.DataFrame(rows, columns=columns)


@pytest.fixture(scope="module")
def families():
    """Metrics and sharing of a decoupled family with its variants, whose understanding moves by chance alone, and of a family that
    shares more: SFT mends its verdicts by 6 points or so, swapped verdicts break them."""
    janus = pd.concat([intervention_runs(VARIANTS), *(run("dpo", seed) for seed in range(5))], ignore_index=True)
    chance = janus["metric"].isin(["balanced_accuracy", "probe_false_positive_rate"])
    start = janus[janus["method"] == "pretrained"].set_index(["seed", "subtask", "metric"])["value"]
    keys = pd.MultiIndex.from_frame(janus.loc[chance, ["seed", "subtask", "metric"]])
    janus.loc[chance, "value"] = start[keys].to_numpy() + 0.01 * (-1.0) ** janus.loc[chance, "seed"]
    emu3 = [run("pretrained", seed) for seed in range(5)] + [renamed(name, name, 3, 5) for name in ("sft", "dpo")]
    emu3 = pd.concat([*emu3, renamed("sft_swapped", "sft_swapped", 4, 5)], ignore_index=True)
    emu3["model"] = emu3["model"].str.replace("janus", "emu3")
    moved = emu3["metric"].eq("balanced_accuracy") & emu3["method"].isin(["sft", "sft_swapped"])
    start = emu3[emu3["method"] == "pretrained"].set_index(["seed", "subtask", "metric"])["value"]
    keys = pd.MultiIndex.from_frame(emu3.loc[moved, ["seed", "subtask", "metric"]])
    shift = emu3.loc[moved, "method"].map({"sft": 0.06, "sft_swapped": -0.06})
    emu3.loc[moved, "value"] = start[keys].to_numpy() + shift.to_numpy() * (1 + 0.1 * emu3.loc[moved, "seed"])
    both = pd.concat([janus, emu3], ignore_index=True)
    return both, pd.concat([alignments("embedded_janus", 1), alignments("embedded_emu3", 10)], ignore_index=True)


@pytest.fixture(scope="module")
def points(families):
    return sharing.points_data(*families)


@pytest.fixture(scope="module")
def means(points):
    return sharing.means_data(points)


def overall(metrics, family, method, metric):
    rows = metrics[(metrics["method"] == method) & (metrics["metric"] == metric) & (metrics["subtask"] == "overall")]
    return by_family(rows)[family].set_index("seed")["value"]


def test_points_pair_a_run_with_its_own_base_model_and_with_what_it_shares(families, points):
    metrics, _ = families
    points = points.set_index(["family", "method", "seed"]).sort_index()
    assert len(points) == 5 * (len(VARIANTS) + 3 + 3)
    for family, method in (("embedded_janus", "i_shared_1"), ("embedded_emu3", "sft_swapped")):
        for metric in ("generation", "balanced_accuracy"):
            change = 100 * (overall(metrics, family, method, metric) - overall(metrics, family, "pretrained", metric))
            assert points.loc[(family, method), metric].to_dict() == pytest.approx(change.to_dict())
        counts = {name: overall(metrics, family, method, f"triple_{name}") for name in ("000", "001", "010", "011")}
        after, before = (counts[name] + counts["011"] for name in ("001", "010"))
        expected = 100 * (after - before) / sum(counts.values())
        assert points.loc[(family, method), "false_positives"].to_dict() == pytest.approx(expected.to_dict())
        changed = [overall(metrics, family, method, f"triple_{name}") for name in ("001", "010", "101", "110")]
        assert (points.loc[(family, method), "changed_number"] == sum(changed)).all()
        assert (points.loc[(family, method), "right"] == changed[1] + changed[2]).all()
    shared = {"i_separate": 0, "i_shared_1_swapped": 1, "i_shared_3": 3, "sft": 4, "dpo": 4}
    for method, number in shared.items():
        rows = points.loc[("embedded_janus", method)]
        assert rows["shared_layers"].eq(number).all() and rows["alignment"].eq(ALIGNMENTS[number]).all()
    assert points.loc[("embedded_emu3", "sft"), "alignment"].eq(0.4).all()


def test_means_are_over_runs_with_base_models_resampled(points, means):
    means = means.set_index(["family", "training", "shared_layers", "quantity"]).sort_index()
    rows = points[(points["family"] == "embedded_emu3") & (points["method"] == "sft")]
    row = means.loc[("embedded_emu3", "sft", 4, "balanced_accuracy")]
    assert (row["mean"], row["runs"]) == (pytest.approx(rows["balanced_accuracy"].mean()), 5)
    interval = cluster_bootstrap_ci(rows["balanced_accuracy"], rows["model"])
    assert (row["low"], row["high"]) == pytest.approx(tuple(interval))


def test_the_answer_is_the_least_alignment_that_moves_understanding(points, means):
    found = tab_sharing.answers(points, means).set_index("question")
    improves, falls = (
        found.loc[f"{name}: balanced accuracy {word}"]
        for name, word in (("own verdicts", "improves"), ("swapped verdicts", "falls"))
    )
    assert improves["value"] == falls["value"] == pytest.approx(0.4)
    assert improves["words"].startswith("at 2 of 7, the least alignment 0.4000")
    assert found.loc["own verdicts: balanced accuracy falls", "words"] == "at none of 7, alignments 0.0000 to 0.4000"
    row = found.loc["swapped verdicts: rank correlation of alignment and balanced accuracy"]
    swapped = points[points["training"] == "sft_swapped"]
    expected = swapped["alignment"].rank().corr(swapped["balanced_accuracy"].rank())
    assert row["value"] == pytest.approx(expected) and row["low"] <= row["value"] <= row["high"]

    of_janus = points["family"] == "embedded_janus", means["family"] == "embedded_janus"
    alone = tab_sharing.answers(points[of_janus[0]], means[of_janus[1]])
    assert alone.loc[alone["question"].str.contains("accuracy (?:improves|falls)"), "value"].isna().all()


def test_figure_and_table_are_the_same_bytes_twice_and_come_from_one_run_of_one_family(families, tmp_path):
    metrics, measured = families
    one = metrics[(metrics["seed"] == 0) & metrics["model"].str.startswith("embedded_janus")]
    for name, rows in (("both", metrics), ("one", one)):
        files = [tmp_path / name / file for file in ("metrics.csv", "sharing.csv")]
        files[0].parent.mkdir()
        rows.to_csv(files[0], index=False)
        measured.to_csv(files[1], index=False)
    metrics_of = {name: pd.read_csv(tmp_path / name / "metrics.csv") for name in ("both", "one")}
    for copy in "ab":
        save(*sharing.draw(metrics_of["both"], measured), tmp_path / copy)
    for suffix in (".pdf", ".png", ".csv"):
        assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()
    save(*sharing.draw(metrics_of["one"], measured), tmp_path / "single")
    data = pd.read_csv(tmp_path / "single.csv")
    assert data.loc[data["part"] == "means", ["low", "high"]].isna().all(axis=None)
    points = sharing.points_data(metrics_of["one"], measured)
    words = tab_sharing.answers(points, sharing.means_data(points)).set_index("question")["words"]
    assert words["own verdicts: balanced accuracy improves"] == "one run has no interval"
    table = tab_sharing.layout(points, sharing.means_data(points))
    assert table.loc[("Janus-like", "SFT, own verdicts", "none"), "Changed and right"] == "0 of 0"


def test_a_run_whose_sharing_was_not_measured_is_named(families):
    metrics, measured = families
    with pytest.raises(SystemExit, match=r"no sharing\.csv for embedded_emu3-1, dpo, 1;"):
        sharing.points_data(
            metrics, measured[~measured["model"].eq("embedded_emu3-1") | measured["experiment"].ne("dpo")]
        )


@pytest.fixture(scope="module")
def plain(families):
    """Metrics of both families, before and after SFT and DPO."""
    return families[0][families[0]["method"].isin(["pretrained", "sft", "dpo"])].reset_index(drop=True)


def test_families_are_read_from_files_of_the_same_runs(plain, tmp_path):
    files = []
    for (family, experiment, seed), rows in plain.groupby([plain["model"].str[:-2], "experiment", "seed"]):
        files.append(tmp_path / family / experiment / f"{seed}.csv")
        files[-1].parent.mkdir(parents=True, exist_ok=True)
        rows.to_csv(files[-1], index=False)
    found = by_family(read_families(files))
    assert {name: len(rows) for name, rows in found.items()} == {
        name: len(rows) for name, rows in by_family(plain).items()
    }
    with pytest.raises(SystemExit, match="The same run is given twice"):
        read_families([*files, files[0]])


def test_figures_2_and_3_have_every_family_with_its_own_counts(plain, tmp_path):
    rows = plain[(plain["method"] == "pretrained") & (plain["subtask"] == "counting")]
    figure, data = fig2_nonunified.draw(plain)
    save(figure, data, tmp_path / "fig2")
    shown = data[data["panel"] == "a"].set_index(["model", "subtask"])["percent"]
    for name, own in by_family(rows[rows["metric"] == "nonunified"]).items():
        assert shown[name, "counting"] == pytest.approx(100 * np.average(own["value"], weights=own["n"]))
    strata = data[(data["panel"] == "c") & data["seed"].isna() & (data["metric"] == "nonunified")]
    assert strata.groupby("family")["stratum"].nunique().to_dict() == {"embedded_emu3": 4, "embedded_janus": 4}
    figure, data = fig3_weak_generation.draw(plain)
    save(figure, data, tmp_path / "fig3")
    cells = data[(data["panel"] == "a") & (data["group"] == "counting")].set_index("model")
    for name, own in by_family(rows[rows["metric"] == "weak_generation_n"]).items():
        assert (cells.loc[name, "k"], cells.loc[name, "n"]) == ((own["value"] * own["n"]).round().sum(), own["n"].sum())


def test_table_1_has_a_block_of_every_family_and_the_papers_cells_of_its_own_model(plain, tmp_path):
    showo = plain[plain["model"].str.contains("emu3")].assign(
        model=lambda rows: rows["model"].str.replace("emu3", "showo")
    )
    data = tab1_main.table_data(pd.concat([plain, showo], ignore_index=True))
    cells = data[(data["metric"] == "generation") & (data["subtask"] == "overall")].set_index(["family", "method"])
    assert cells.loc[("embedded_janus", "sft"), "paper"] == 43.29 and np.isnan(
        cells.loc[("embedded_emu3", "sft"), "paper"]
    )
    assert 0 < cells.loc[("embedded_showo", "sft"), "paper"] != 43.29
    alone = tab1_main.table_data(by_family(plain)["embedded_janus"])
    own = data[data["family"] == "embedded_janus"].drop(columns="family").reset_index(drop=True)
    pd.testing.assert_frame_equal(own, alone)
    table = tab1_main.layout(data)
    assert list(dict.fromkeys(table.index.get_level_values(0))) == ["Emu3-like", "Janus-like", "Show-o-like"]
    save_table(table, data, tmp_path / "tab1")
    assert (tmp_path / "tab1.md").read_text().count("Show-o-like") == 1


def test_the_ledger_has_every_claim_once_and_a_column_for_each_family(tmp_path):
    files = []
    for family, names in (("embedded_janus", "ab"), ("embedded_emu3", "bc")):
        folder = tmp_path / family
        folder.mkdir()
        rows = [(name, f"claim {name}", 1.5, 0.5, 2.5, f"{family}'s word") for name in names]
        columns = ["claim", "statement", "estimate", "ci_low", "ci_high", "verdict"]
        pd.DataFrame(rows, columns=columns).to_csv(folder / "claims.csv", index=False)
        rest = pd.DataFrame([("z", "claim z", "not run: needs dpo")], columns=["claim", "statement", "reason"])
        rest.to_csv(folder / "claims_not_judged.csv", index=False)
        files += [folder / "claims.csv", folder / "claims_not_judged.csv"]
    table = claims_families.layout(claims_families.ledger(files[::2]))
    assert table.index.to_list() == ["claim a", "claim b", "claim c"]
    assert table.loc["claim a"].to_dict() == {
        "Emu3-like": "not judged",
        "Janus-like": "embedded_janus's word: 1.5 [0.5, 2.5]",
    }
    assert claims_families.ledger(files[1::2])["family"].to_list() == ["embedded_janus", "embedded_emu3"]
