"""Shards of candidates, each drawn by a job of its own, put together again."""

import argparse
import shutil
from pathlib import Path

import numpy as np
import pandas as pd

from replication.files import atomic_directory


def merge_table(shards, name):
    """The table `name` of all shards together, as text without its column row, by which it is sorted; and the place of each of
    its rows among those of one shard after the other. Raises SystemExit with one sentence when rows are missing or twice there."""
    # As text, so that no number is rounded and no answer of a model ("NA", say) is taken for a missing one.
    tables = [pd.read_csv(shard / name, dtype=str, keep_default_na=False) for shard in shards]
    table = pd.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True)  # some may be empty
    rows = table.pop("row").astype(int).to_numpy()
    places = np.argsort(rows)
    if not np.array_equal(rows[places], np.arange(len(rows))):
        raise SystemExit(
            f"{', '.join(map(str, shards))} are not the {len(shards)} shards of one drawing; remove and draw them again."
        )
    return table.iloc[places], places


def merge_array(shards, name, places):
    """The rows of the arrays `name` of one shard after the other, in the order of `places`."""
    arrays = [np.load(shard / name, allow_pickle=False) for shard in shards]
    return np.concatenate([array for array in arrays if len(array)] or arrays[:1])[places]


def merge_shards(shards, output):
    """Write the candidates.csv and codes.npy that one job would have written, to the byte, from those of its shards.

    shards: folders of `python -m replication.candidates --shard K N`, all N of them. output: folder, written whole or not
    at all. Raises SystemExit with one sentence when rows are missing or twice there.
    """
    table, places = merge_table(shards, "candidates.csv")
    with atomic_directory(output) as folder:
        table.to_csv(folder / "candidates.csv", index=False)
        np.save(folder / "codes.npy", merge_array(shards, "codes.npy", places), allow_pickle=False)
        shutil.copy2(shards[0] / "provenance.json", folder)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=Path, nargs="+", required=True, help="the folders of all shards")
    parser.add_argument("--output", type=Path, required=True, help="folder of candidates.csv and codes.npy")
    arguments = parser.parse_args()
    merge_shards(arguments.shards, arguments.output)


if __name__ == "__main__":
    main()
