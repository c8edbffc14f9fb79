"""Metrics of invented runs, made through the real `summarise`, for the tests of figures and tables."""

import numpy as np
import pandas as pd

from replication.benchmark_prompts import STRATUM_OF as STRATUM_OF_BENCHMARK
from replication.metrics import summarise
from replication.results import BENCHMARKS
from replication.scenes import STRATUM_OF, SUBTASKS

GAINS = {"pretrained": 0.0, "sft": 0.1, "sft_accept_all": 0.05, "dpo": 0.07}
# Arms of poor supervision: gain in generation, precision of the training set, share of verdicts that drift to yes.
POOR = {
    "sft_oracle": (0.12, 0.99, 0.0),
    "sft_lenient": (0.08, 0.75, 0.0),
    "sft_flipped_10": (0.02, 0.55, 0.1),
    "sft_everything": (0.0, 0.5, 0.0),
    "sft_flipped_25": (-0.05, 0.4, 0.1),
    "sft_flipped_50": (-0.1, 0.25, 0.2),
    "sft_shuffled": (-0.25, 0.1, 0.6),
    "sft_swapped": (-0.3, 0.01, 0.7),
    "dpo_oracle": (0.1, 0.99, 0.0),
    "dpo_lenient": (0.06, 0.75, 0.0),
    "dpo_flipped_10": (0.03, 0.55, 0.1),
    "dpo_flipped_25": (-0.03, 0.4, 0.0),
    "dpo_flipped_50": (-0.06, 0.25, 0.0),
    "dpo_shuffled": (-0.2, 0.1, 0.5),
    "dpo_swapped": (-0.25, 0.01, 0.0),
}
EXPERIMENTS = {"pretrained": "baseline"}


def draws(rng, share, size):
    return (rng.random(size) < share).astype(int)


def run(method, seed, prompts=40):
    """Metrics frame of one invented run: later subtasks are harder, and verdicts are right in 85 % of cases."""
    return summarise(*frames_of_run(method, seed, prompts))


def frames_of_run(method, seed, prompts=40):
    """What `summarise` takes: frames of own images, labelled scenes and changed verdicts, and the run's identity."""
    rng = np.random.default_rng([seed, [*GAINS, *POOR].index(method)])
    gain, _, drift = POOR.get(method, (GAINS.get(method), None, 0.0))
    images, probe, verdicts = [], [], []
    count = 4 if method == "pretrained" else 1
    for index, subtask in enumerate(SUBTASKS):
        truth = draws(rng, 0.8 - 0.07 * index + gain, prompts * count)
        verdict = np.where(rng.random(len(truth)) < 0.85, truth, 1 - truth)
        verdict = verdict | draws(rng, drift, len(verdict))
        names = {"subtask": subtask, "stratum": STRATUM_OF[subtask]}
        images.append(
            pd.DataFrame({**names, "image": np.arange(len(truth)) % count, "truth": truth, "verdict": verdict})
        )
        label = np.tile([0, 1], prompts)
        answers = np.where(rng.random(len(label)) < 0.88 + gain / 3, label, 1 - label)
        scenes = {**names, "probe_id": np.arange(len(label)) + index * len(label), "label": label, "verdict": answers}
        probe.append(pd.DataFrame(scenes))
        after = np.where(rng.random(len(truth)) < 0.06, 1 - verdict, verdict)
        verdicts.append(pd.DataFrame({**names, "truth": truth, "before": verdict, "after": after}))
    identity = {
        "preset": "test",
        "experiment": EXPERIMENTS.get(method, method),
        "model": f"embedded_janus-{seed % 3}",
        "method": method,
        "seed": seed,
    }
    verdicts = None if method == "pretrained" else pd.concat(verdicts, ignore_index=True)
    return pd.concat(images, ignore_index=True), pd.concat(probe, ignore_index=True), verdicts, identity


def write_judged_runs(folder, seeds=5, false_positives=0.3, false_negatives=0.05):
    """metrics.csv and probe_verdicts.csv of invented runs, with an imperfect judge of these error rates beside the oracle;
    returns the paths that figure `judges` reads."""
    files = []
    for method in ("pretrained", "sft", "dpo"):
        for seed in range(seeds):
            images, probe, verdicts, identity = frames_of_run(method, seed)
            for frame, truth, draw in ((images, "truth", len(method)), (probe, "label", 0), (verdicts, "truth", 1)):
                if frame is not None:
                    rng = np.random.default_rng([seed, draw])  # the same judge of the same scenes for all methods
                    errs = rng.random(len(frame)) < np.where(frame[truth] == 1, false_negatives, false_positives)
                    frame["judge_verdict"] = np.where(errs, 1 - frame[truth], frame[truth])
            run_folder = folder / identity["experiment"] / f"seed={seed}"
            run_folder.mkdir(parents=True)
            summarise(images, probe, verdicts, identity).to_csv(run_folder / "metrics.csv", index=False)
            files.append(run_folder / "metrics.csv")
            if method == "pretrained":
                probe.to_csv(run_folder / "probe_verdicts.csv", index=False)
                files.append(run_folder / "probe_verdicts.csv")
    return files


def all_runs(seeds=5):
    return pd.concat([run(method, seed) for method in GAINS for seed in range(seeds)], ignore_index=True)


def quality_check(method, seed):
    """Rows of an invented quality_check.csv: 100 labels, and judges that are as good as the training set."""
    rng = np.random.default_rng([seed, [*GAINS, *POOR].index(method), 7])
    precision = rng.binomial(100, POOR.get(method, (0, 0.73))[1]) / 100
    rows = [("precision_chosen", precision, 100), ("own_right", 0.5, 100), ("advantage", precision - 0.5, 200)]
    if method.startswith("dpo"):
        rows.append(("pair_margin", 2 * precision - 1, 100))
    rows += [("mismatched_yes_rate", 0.1 + 0.5 * rng.random(), 500), ("kappa", precision - 0.3 * rng.random(), 500)]
    rows.append(("discrimination", precision - 0.2 * rng.random(), 1000))
    frame = pd.DataFrame(rows, columns=["metric", "value", "n"])
    names = {"preset": "test", "experiment": method, "method": method, "seed": seed, "subtask": "overall"}
    return frame.assign(**names, model=f"embedded_janus-{seed % 3}", judge="oracle")


def poor_supervision_runs(arms=tuple(POOR), seeds=5):
    """Metrics and quality checks of the pre-trained models, of sft, of dpo and of the named arms."""
    trained = ("sft", "dpo", *arms)
    frames = [run(method, seed) for method in ("pretrained", *trained) for seed in range(seeds)]
    frames += [quality_check(method, seed) for method in trained for seed in range(seeds)]
    return pd.concat(frames, ignore_index=True)


def curriculum_runs(arms, metrics, seeds=5):
    """Metrics of invented runs of the curriculum added to `metrics`, and their phases.csv: one replay each. An arm's metrics
    are those of a plain run under its name."""
    frames, rows = [metrics], []
    for index, arm in enumerate(arms):
        rng = np.random.default_rng(index)
        for seed in range(seeds):
            frames.append(
                run("dpo" if arm == "c_dpo" else "sft", seed + 100 * (index + 1)).assign(
                    experiment=arm, method=arm, seed=seed
                )
            )
            frames[-1]["model"] = f"embedded_janus-{seed % 3}"
            discarded = int(rng.integers(6, 20))
            unlocked = 0 if arm == "c_sft_random" else int(rng.integers(1, discarded))
            added = unlocked or 5
            rows.append((arm, seed, 1, 700, 700, 0, discarded))
            rows.append((arm, seed, 2, added, 700 + added, unlocked, discarded - unlocked))
    columns = ["experiment", "seed", "phase", "samples_added", "samples", "prompts_unlocked", "prompts_discarded"]
    return pd.concat(frames, ignore_index=True), pd.DataFrame(rows, columns=columns)


def supervision_table(experiment, seed, candidates=10, prompts=90):
    """Rows of an invented supervision.csv, with the run that its path would name."""
    rng = np.random.default_rng([seed, candidates, len(experiment)])
    used = int(prompts * candidates / (candidates + 3)) - int(rng.integers(5))
    rows = [("prompts", prompts, prompts), ("prompts_used", used, prompts)]
    rows += [
        ("accepted_share", 0.6, prompts * candidates),
        ("samples", used * (8 if experiment == "sft_accept_all" else 1), prompts),
    ]
    rows.append(("precision_chosen", 0.7 + 0.2 * rng.random(), used))
    return pd.DataFrame(rows, columns=["metric", "value", "n"]).assign(experiment=experiment, seed=seed)


def renamed(method, like, shift, seeds):
    """Metrics of runs of `like` with other random numbers, under the name of `method`."""
    frames = [run(like, seed + 100 * shift).assign(seed=seed) for seed in range(seeds)]
    models = [f"embedded_janus-{seed % 3}" for seed in range(seeds)]
    frames = [
        one.assign(method=method, experiment=method, model=model) for one, model in zip(frames, models, strict=True)
    ]
    return pd.concat(frames, ignore_index=True)


def sensitivity_runs(arms, guided, seeds=5):
    """Metrics and supervision of pretrained, sft, sft_accept_all, dpo and of `arms`, and metrics of `guided` evaluations; the
    arms are as good as arms of poor supervision, in turn."""
    usual = ["sft", "sft_accept_all", "dpo"]
    frames = [run(method, seed) for method in ("pretrained", *usual) for seed in range(seeds)]
    frames += [renamed(arm, [*POOR][index % 8], index + 1, seeds) for index, arm in enumerate([*arms, *guided])]
    tables = [
        supervision_table(arm, seed, int(arm[4:]) if arm.startswith("s_n_") else 10)
        for arm in (*usual, *arms)
        for seed in range(seeds)
    ]
    return pd.concat(frames, ignore_index=True), pd.concat(tables, ignore_index=True)


def intervention_runs(arms, seeds=5):
    """Metrics of the pre-trained models, of sft and sft_swapped, and of `arms`; understanding does not move where the arm has
    separate copies, and hardly where its steps are projected."""
    plain = {arm: "sft_swapped" if arm.endswith("_swapped") else "sft" for arm in ("sft", "sft_swapped", *arms)}
    frames = [run("pretrained", seed) for seed in range(seeds)]
    for index, (arm, like) in enumerate(plain.items()):
        for seed in range(seeds):
            images, probe, verdicts, identity = frames_of_run(like, seed + 100 * index * (arm != like))
            identity |= {"method": arm, "experiment": arm, "seed": seed, "model": f"embedded_janus-{seed % 3}"}
            if "separate" in arm or "orthogonal" in arm:
                kept = np.random.default_rng([seed, index]).random(len(verdicts)) < (0.9 if "orthogonal" in arm else 1)
                verdicts["after"] = verdicts["after"].where(~kept, verdicts["before"])
                probe["verdict"] = frames_of_run("pretrained", seed)[1]["verdict"]
            frames.append(summarise(images, probe, verdicts, identity))
    return pd.concat(frames, ignore_index=True)


def loop_runs(arms, seeds=5):
    """Metrics, images and supervision of pretrained, sft and `arms`: every later one draws images that are more alike."""
    metrics, supervision = sensitivity_runs([arm for arm in arms if arm != "dpo"], [], seeds)
    images = []
    for index, experiment in enumerate(["baseline", "sft", *arms]):
        for seed in range(seeds):
            surprise = 20 - 2 * index + np.random.default_rng([seed, index]).random(len(SUBTASKS) * 4)
            names = {"experiment": experiment, "seed": seed, "subtask": np.repeat(SUBTASKS, 4)}
            of_prompts = pd.DataFrame({**names, "image": 0, "log_prob": -surprise})
            images += [of_prompts, of_prompts.assign(image=1, log_prob=0.0)] if index == 0 else [of_prompts]
    return metrics, pd.concat(images, ignore_index=True), supervision


def evaluation_images(seed):
    """Invented images.csv frame and images.npy array of one evaluation: two prompts per subtask, two images each."""
    rng = np.random.default_rng(seed)
    rows = [
        {"prompt_id": 2 * index + copy, "prompt": f"prompt {copy} of {subtask}", "subtask": subtask, "image": image}
        for index, subtask in enumerate(SUBTASKS)
        for copy in range(2)
        for image in range(2)
    ]
    frame = pd.DataFrame(rows).assign(truth=draws(rng, 0.5, len(rows)), verdict=draws(rng, 0.5, len(rows)))
    return frame, rng.integers(0, 256, (2 * len(SUBTASKS), 24, 24, 3), dtype=np.uint8)


def benchmark_frames(method, seed, prompts=40, model="janus_pro_7b-0"):
    """What `summarise` takes of an invented run at the paper's scale: images with their benchmark and its score, no labelled
    scenes, changed verdicts; later subtasks are harder."""
    rng = np.random.default_rng([seed, [*GAINS].index(method), 1])
    names = [(benchmark, subtask) for benchmark, subtasks in BENCHMARKS.items() for subtask in subtasks]
    count = 4 if method == "pretrained" else 1
    rows = [
        {"benchmark": benchmark, "stratum": STRATUM_OF_BENCHMARK[benchmark], "subtask": subtask, "image": image}
        for benchmark, subtask in names
        for _ in range(prompts)
        for image in range(count)
    ]
    images = pd.DataFrame(rows)
    number = images["subtask"].map({subtask: index for index, (_, subtask) in enumerate(names)})
    images["prompt_id"] = np.arange(len(images)) // count
    images["truth"] = draws(rng, 0.8 - 0.05 * number + GAINS[method], len(images))
    images["score"] = np.clip(0.3 + 0.4 * images["truth"] + 0.2 * rng.random(len(images)), 0, 1)
    images["verdict"] = np.where(rng.random(len(images)) < 0.85, images["truth"], 1 - images["truth"])
    images = images.assign(parsed=1, truth_parsed=1)
    old = images[["prompt_id", "subtask", "stratum", "image", "truth"]].assign(before=images["verdict"])
    old["after"] = np.where(rng.random(len(old)) < 0.06, 1 - old["before"], old["before"])
    scenes = pd.DataFrame(columns=["probe_id", "subtask", "stratum", "label", "alignment_logit", "verdict"])
    identity = {"preset": "test", "experiment": EXPERIMENTS.get(method, method), "method": method}
    identity |= {"model": model, "seed": seed}
    return images, scenes, None if method == "pretrained" else old, identity


def benchmark_runs(methods=("pretrained", "sft", "dpo"), seeds=3, prompts=40):
    """Metrics of invented runs at the paper's scale, judged by a Qwen."""
    frames = [benchmark_frames(method, seed, prompts) for method in methods for seed in range(seeds)]
    return pd.concat([summarise(*frame, "qwen2_5_vl_7b") for frame in frames], ignore_index=True)
