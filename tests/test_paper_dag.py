"""The paper's preset as a whole, by its own rules: weights of the model and of all judges from a hub, real prompts, candidates in
written answers, training sets, SFT, DPO and both curricula by adapters, judged evaluations, figures, tables and claims."""

import pandas as pd
import pytest
import small_judges
from hub_checkpoints import HUB_MODEL
from loopback import a_hub, serve
from settings import REAL_PROMPTS
from test_workflow import PRELOADED, copy_repository, run

from replication.config import load_stage

COMMIT = "0123456789abcdef0123456789abcdef01234567"  # of Janus-Pro, which the configuration leaves open
SMALL = [
    "model.device=cpu",
    "model.dtype=float32",
    "model.compile=false",
    f"model.revision='{COMMIT}'",
    "judge.device=cpu",
    "judge.verdict.dtype=float32",
    "judge.verdict.answer_tokens=4",
    "judge.verdict.nonsense_share=1",  # random weights write nonsense, which is counted and stops nothing here
    f"prompts.mirror={REAL_PROMPTS}",
    "prompts.train_prompts=4",
    "prompts.evaluation_prompts=2",
    "candidates.candidates_per_prompt=6",
    "candidates.answer_tokens=8",
    "epochs.sft=4",
    "epochs.dpo=4",
    "post_training.learning_rate=1e-3",
    "seeds=[0]",
    "evaluation_shards=1",  # 20 images are one batch; test_paper_scale_evaluation.py has shards of judged ones
]
BUILDERS = {"verdict": small_judges.qwen, "blip_vqa": small_judges.blip, "detector": small_judges.owlv2}


def released(taught_checkpoint, folder):
    """All that the preset downloads, as small models: {(repository, commit): {file name: content}}."""
    judge = load_stage("evaluation", "paper")["judge"]
    found = {(HUB_MODEL["repository"], COMMIT): taught_checkpoint}
    for name, block in judge.items():
        if isinstance(block, dict):
            build = BUILDERS.get(name, small_judges.clip)
            found[block["repository"], block["revision"]] = build(folder / name)
    return {key: {file.name: file.read_bytes() for file in path.iterdir()} for key, path in found.items()}


@pytest.mark.slow
@pytest.mark.skipif(REAL_PROMPTS is None, reason="the benchmarks' files are not beside the repository")
def test_the_whole_preset_runs_on_small_checkpoints_and_real_prompts(taught_checkpoint, tmp_path, monkeypatch):
    folder = copy_repository(tmp_path / "clone")
    overrides = ["--config", "preset=paper", f"overrides={SMALL}"]
    with serve(a_hub(released(taught_checkpoint, tmp_path))) as (address, _):
        monkeypatch.setenv("HF_ENDPOINT", address)
        done = run(folder, *PRELOADED, "snakemake", "--cores", "2", "paper_figures", *overrides)
        assert done.returncode == 0, done.stdout
    again = run(folder, "snakemake", "--cores", "2", "paper_figures", *overrides)  # and asks no network
    assert "Nothing to be done" in again.stdout, again.stdout

    results = folder / "results/paper"
    for experiment in ("baseline", "sft", "c_sft", "dpo", "c_dpo"):
        metrics = pd.read_csv(results / experiment / "seed=0/evaluation/metrics.csv")
        counted = metrics[metrics["n"] > 0]
        assert len(counted) and counted["value"].notna().all()
        images = pd.read_csv(results / experiment / "seed=0/evaluation/images.csv")
        assert set(images["benchmark"]) == {"t2i_compbench", "geneval"}
        assert images["score"].between(-1, 1).all()  # a cosine of random weights may be negative
        assert images["answer"].notna().any()
        for table in ("tab5_t2i_compbench", "tab6_geneval"):  # every cell that has something to count is filled
            cells = pd.read_csv(results / f"figures/{table}.csv")
            counted = cells[(cells["method"] == metrics["method"][0]) & (cells["metric"] != "understanding_win_rate")]
            assert len(counted) and counted["ours"].notna().all() and (counted["verdict"] != "not run").all()
            assert (results / f"figures/{table}.tex").stat().st_size

    drawn = ("fig2_nonunified", "fig3_weak_generation", "fig4_gains", "fig5_win_rate", "samples")
    assert all((results / f"figures/{name}.pdf").stat().st_size > 5000 for name in drawn)
    cells = pd.read_csv(results / "figures/fig2_nonunified.csv")
    assert len(cells[(cells["panel"] == "a") & (cells["model"] == "paper") & (cells["verdict"] != "not run")]) == 12
    table = pd.read_csv(results / "figures/tab1_main.csv")
    assert table.loc[table["metric"] == "generation", ["percent", "paper", "tolerance"]].notna().all(axis=None)
    judged, rest = (pd.read_csv(results / f"{name}.csv") for name in ("claims", "claims_not_judged"))
    assert len(judged) == 12 and "sft_improves_generation" in set(judged["claim"])
    assert rest["reason"].str.startswith(("not run: needs ", "needs every stratum: ", "needs held-out ")).all()
    assert (results / "figures/claims.tex").stat().st_size
