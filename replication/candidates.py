"""Candidates: N images per training prompt and the model's own verdicts on them (paper Algorithm 1, lines 1 to 5)."""

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from replication.files import atomic_directory
from replication.gpu_memory import check_gpu, drawing_memory
from replication.judges import oracle
from replication.models.interface import load_model
from replication.provenance import write_provenance
from replication.sampling import image_seed
from replication.verdicts import ENOUGH_TO_TELL, check_sense, own_verdicts


def whole_batches(rows, batch_size, shard):
    """The k-th of n parts of so many rows, as a slice; shard: (k, n). Parts are whole batches, because the last digits of
    likelihoods, logits and pixels depend on what else is in the batch; so all parts together have the bytes of one."""
    part, parts = shard
    batches = -(-rows // batch_size)
    return slice(batches * part // parts * batch_size, batches * (part + 1) // parts * batch_size)


def drawing_order(rows):
    """Positions of the rows of a frame with a column prompt in the order in which `draw_images` takes them."""
    return np.argsort(rows["prompt"].str.len().to_numpy(), kind="stable")  # prompts of one length need no padding


def draw_images(
    model,
    prompts,
    number,
    index_name,
    purpose,
    seed,
    config,
    judge=None,
    second_judge=None,
    truth_known=True,
    shard=(0, 1),
    keep_images=False,
    nonsense_share=None,
):
    """Draw `number` images per prompt and judge each by the model itself (or by the model `judge`) and, where the
    truth is known, by the oracle.

    prompts: frame with columns prompt_id, prompt, subtask, stratum. index_name: column that counts a prompt's images.
    purpose, seed: name the random stream (`image_seed`). config: guidance_scale, temperature, batch_size, and how verdicts
    are had (`own_verdicts`). shard: (k, n), draw the k-th of n parts only (`whole_batches`). nonsense_share: of the first
    `ENOUGH_TO_TELL` written answers, the most that may say no score (`check_sense`).

    Returns a frame with the columns of `prompts`, index_name, image_seed, log_prob (without guidance, temperature 1),
    those of `own_verdicts`, truth (the oracle's; there where `truth_known`, which it is of rendered scenes), and judge_verdict
    where the model `second_judge` is asked, too, prompt by prompt, its index the number of each row among those of all shards;
    and in the same order codes (n, T) int16 and, with `keep_images`, the very images (n, H, W, 3) that were judged. Without,
    pixels are not kept: 60,000 pictures of 384 x 384 are 26 GB, and codes decode again.
    """
    rows = prompts.loc[prompts.index.repeat(number)].reset_index(drop=True)
    rows[index_name] = np.tile(np.arange(number), len(prompts))
    rows["image_seed"] = [
        image_seed(seed, purpose, prompt_id, index)
        for prompt_id, index in zip(rows["prompt_id"], rows[index_name], strict=True)
    ]
    drawn = drawing_order(rows)[whole_batches(len(rows), config["batch_size"], shard)]
    if not len(drawn):
        judged = ["log_prob", "alignment_logit", "verdict", *(["truth"] if truth_known else [])]
        nothing = np.empty((0, 0), np.int16), np.empty((0, 0, 0, 3), np.uint8)
        return rows.iloc[:0].reindex(columns=[*rows, *judged]), *nothing[: 1 + keep_images]
    codes, log_probs, verdicts, truth, kept = [], [], [], [], []
    for start in tqdm(range(0, len(drawn), config["batch_size"]), desc=f"images for {purpose}"):
        batch = rows.iloc[drawn[start : start + config["batch_size"]]]
        batch_codes, batch_log_probs = model.sample_images(
            batch["prompt"].tolist(), batch["image_seed"].tolist(), config["guidance_scale"], config["temperature"]
        )
        codes.append(batch_codes.cpu().numpy().astype(np.int16))
        log_probs.append(batch_log_probs.double().cpu().numpy())
        images = model.decode_images(batch_codes)
        verdicts.append(own_verdicts(judge or model, images, batch["prompt"], config))
        if nonsense_share is not None and start < ENOUGH_TO_TELL <= start + len(batch):
            check_sense(pd.concat(verdicts), nonsense_share)
        if second_judge:
            second = own_verdicts(second_judge, images, batch["prompt"], config)
            verdicts[-1]["judge_verdict"] = second["verdict"]
        if truth_known:
            truth.append(oracle.judge(images, batch["prompt"]))
        if keep_images:
            kept.append(images)
    in_order = np.argsort(drawn)
    rows = rows.iloc[drawn[in_order]]
    rows["log_prob"] = np.concatenate(log_probs)[in_order]
    rows = rows.join(pd.concat(verdicts, ignore_index=True).iloc[in_order].set_axis(rows.index))
    if truth_known:
        rows["truth"] = np.concatenate(truth).astype(int)[in_order]
    return rows, *(np.concatenate(parts)[in_order] for parts in (codes, kept) if parts)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=json.loads, required=True, help="canonical JSON of the candidates section")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--model", required=True, help="checkpoint folder of the base model")
    parser.add_argument("--prompts", type=Path, required=True, help="CSV of prompts")
    parser.add_argument("--purpose", default="candidates", help="names the random stream")
    parser.add_argument("--judge", help="checkpoint folder of the model whose verdicts count, unless it is --model")
    parser.add_argument("--shard", type=int, nargs=2, metavar=("K", "N"), help="draw the K-th (from 0) of N parts only")
    parser.add_argument("--output", type=Path, required=True, help="folder of candidates.csv and codes.npy")
    arguments = parser.parse_args()
    config, judge = arguments.config, arguments.judge if arguments.judge != arguments.model else None
    check_gpu(config["model"], drawing_memory(config, models=2 if judge else 1), "candidates.batch_size")
    rows, codes = draw_images(
        load_model(arguments.model, config["model"]),
        pd.read_csv(arguments.prompts),
        config["candidates_per_prompt"],
        "candidate",
        arguments.purpose,
        arguments.seed,
        config,
        judge and load_model(judge, config["model"]),
        truth_known=config["judge"] == "oracle",
        shard=arguments.shard or (0, 1),
        # what training does to the answers is a result
        nonsense_share=config["nonsense_share"] if arguments.purpose == "candidates" else None,
    )
    with atomic_directory(arguments.output) as folder:
        rows.to_csv(folder / "candidates.csv", index=bool(arguments.shard), index_label="row")
        np.save(folder / "codes.npy", codes, allow_pickle=False)
        write_provenance(folder / "provenance.json", config, arguments.seed)


if __name__ == "__main__":
    main()
