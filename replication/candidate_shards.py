"""Shards of candidates, each drawn by a job of its own, put together again."""

import argparse
import shutil
from pathlib import Path

import numpy as np
import pandas as pd

from replication.files import atomic_directory


def merge_shards(shards, output):
    """Write the candidates.csv and codes.npy that one job would have written, to the byte, from those of its shards.

    shards: folders of `python -m replication.candidates --shard K N`, all N of them. output: folder, written whole or not
    at all. Raises SystemExit with one sentence when rows are missing or twice there.
    """
    # As text, so that no number is rounded and no answer of a model ("NA", say) is taken for a missing one.
    tables = [pd.read_csv(shard / "candidates.csv", dtype=str, keep_default_na=False) for shard in shards]
    drawn = [number for number, table in enumerate(tables) if len(table)] or [0]  # a shard may have no batch to draw
    table = pd.concat([tables[number] for number in drawn], ignore_index=True)
    codes = np.concatenate([np.load(shards[number] / "codes.npy", allow_pickle=False) for number in drawn])
    rows = table.pop("row").astype(int).to_numpy()
    in_order = np.argsort(rows)
    if not np.array_equal(rows[in_order], np.arange(len(rows))):
        raise SystemExit(
            f"The shards of {output} are not the {len(shards)} of one drawing; remove and draw them again."
        )
    with atomic_directory(output) as folder:
        table.iloc[in_order].to_csv(folder / "candidates.csv", index=False)
        np.save(folder / "codes.npy", codes[in_order], allow_pickle=False)
        shutil.copy2(shards[0] / "provenance.json", folder)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=Path, nargs="+", required=True, help="the folders of all shards")
    parser.add_argument("--output", type=Path, required=True, help="folder of candidates.csv and codes.npy")
    arguments = parser.parse_args()
    merge_shards(arguments.shards, arguments.output)


if __name__ == "__main__":
    main()
