"""Two families in one DAG by the workflow's own rules: the shipped one with a variant that shares half of its layers, and the
shared-token one, whose base models have random weights here."""

import hashlib
import shutil

import pandas as pd
import pytest
from families import UNTRAINED
from test_workflow import PRELOADED, copy_for_smoke, run

OTHER = "embedded_emu3"
LITTLE = [f"families.others=[{OTHER}]", "families.arms=[sft]"] + [
    f"families.{part}.experiments=[sft]" for part in ("figures.sharing", "tables.tab_sharing")
]
TARGETS = [
    f"results/smoke/figures/families/{file}" for file in ("sharing.pdf", "tab_sharing.tex", "claims_families.tex")
]


def ship_random_weights(folder):
    """Base models 1 and 3 of the other family, with checksums, and no others."""
    shutil.rmtree(folder / OTHER, ignore_errors=True)
    for seed in (1, 3):
        base = folder / OTHER / f"base={seed}"
        UNTRAINED["emu3"].new_model(seed).save_pretrained(base)
        UNTRAINED["emu3"].new_processor().save_pretrained(base)
        shutil.copy(folder / "embedded_janus/base=0/quality.csv", base)
    files = sorted((folder / OTHER).glob("*/*"))
    sums = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.parent.name}/{file.name}\n" for file in files]
    (folder / OTHER / "SHA256SUMS").write_text("".join(sums))


@pytest.mark.slow
def test_two_families_and_a_variant_end_in_one_figure_and_the_claims_of_each(smoke_results, tmp_path):
    folder = copy_for_smoke(tmp_path)
    shutil.copytree(smoke_results, folder / "results/smoke")  # of the shipped family all is there but the variant
    ship_random_weights(folder / "base_models")
    command = ["snakemake", "--cores", "2", *TARGETS, "--rerun-triggers", "mtime"]
    command += ["--config", "preset=smoke", f"overrides={LITTLE}"]
    done = run(folder, *PRELOADED, *command)
    assert done.returncode == 0, done.stdout
    assert "Nothing to be done" in run(folder, *command).stdout

    own = folder / "results/smoke"
    for results, name in ((own, "embedded_janus-0"), (own / f"family={OTHER}", f"{OTHER}-1")):
        shared = pd.read_csv(results / "sft/seed=0/sharing.csv")
        assert (shared["model"] == name).all()
        kernel = pd.read_csv(results / "sft/seed=0/kernel/alignment.csv").set_index(
            ["model_at", "metric", "part", "group"]
        )
        kernel = kernel.loc[("before", "plain", "all", "all")].set_index("block")
        for block, rows in shared.set_index("shared_layers").groupby("block"):
            for column in ("cosine", "absolute_cosine"):
                assert rows.loc[4, column] == pytest.approx(kernel.loc[block, column], rel=1e-3, abs=1e-7)
                assert rows.loc[0, column] == 0

    plain, variant = (own / f"{experiment}/seed=0/evaluation" for experiment in ("sft", "i_shared_2"))
    assert (plain / "codes.npy").read_bytes() == (variant / "codes.npy").read_bytes()
    points = pd.read_csv(own / "figures/families/sharing.csv")
    points = points[points["part"] == "runs"].set_index(["family", "method"])
    assert set(points.index) == {("embedded_janus", "sft"), ("embedded_janus", "i_shared_2"), (OTHER, "sft")}
    assert points["shared_layers"].to_dict() == {index: 2 if "i_" in index[1] else 4 for index in points.index}
    assert (
        points.loc[("embedded_janus", "i_shared_2"), "generation"]
        == points.loc[("embedded_janus", "sft"), "generation"]
    )
    ledger = pd.read_csv(own / "figures/families/claims_families.csv")
    judged = ledger[ledger["estimate"].notna()].groupby("family")["claim"].apply(set)
    assert judged["embedded_janus"] == judged[OTHER] >= {"sft_improves_generation", "branches_share_gradients"}
