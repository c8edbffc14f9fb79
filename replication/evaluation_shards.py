"""Shards of an evaluation, each drawn and judged by a job of its own, put together again and measured."""

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd

from replication.candidate_shards import merge_array, merge_table
from replication.claim_registry import merge_registered
from replication.evaluation_summary import write_summary
from replication.files import atomic_directory


def merge_evaluation(shards, output, config, seed, model, baseline):
    """Write the files of the evaluation that one job would have written, to the byte, from those of its shards.

    shards: folders of `python -m replication.evaluation --shard K N`, all N of them. The rest is as in `write_summary`.
    Raises SystemExit with one sentence when rows are missing or twice there.
    """
    names = ["images.csv", "probe_verdicts.csv", *(["pretrained_verdicts.csv"] if baseline else [])]
    with atomic_directory(output) as folder:
        for name in names:
            table, places = merge_table(shards, name)
            table.to_csv(folder / name, index=False)
            if name == "images.csv":
                np.save(folder / "codes.npy", merge_array(shards, "codes.npy", places), allow_pickle=False)
                first = places[table["image"] == "0"].argsort().argsort()  # only these have their pixels kept
                np.save(folder / "images.npy", merge_array(shards, "images.npy", first), allow_pickle=False)
        merge_registered(shards, folder)
        frames = [pd.read_csv(folder / name) for name in names]
        write_summary(folder, *frames, *[None] * (3 - len(names)), config, seed, model, baseline)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=json.loads, required=True, help="canonical JSON of the evaluation section")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--model", type=Path, required=True, help="checkpoint folder")
    parser.add_argument(
        "--baseline", type=Path, help="evaluation folder of the pre-trained model, unless it is this one"
    )
    parser.add_argument("--shards", type=Path, nargs="+", required=True, help="the folders of all shards")
    parser.add_argument("--output", type=Path, required=True, help="folder of the evaluation files")
    arguments = parser.parse_args()
    merge_evaluation(
        arguments.shards, arguments.output, arguments.config, arguments.seed, arguments.model, arguments.baseline
    )


if __name__ == "__main__":
    main()
