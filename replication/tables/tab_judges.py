"""What an imperfect judge moves: the numbers of figure `judges`.

Each quantity by the exact oracle and by the judge, raw and corrected for the judge's errors on labelled scenes, in per cent
(gains in points), with 95 % intervals; the differences are paired over runs. The last columns say whether the interval
exceeds what the conclusion names.
"""

import pandas as pd

from replication.figures.judges import NAMES, conclusions_data, read_inputs
from replication.results import parse_arguments
from replication.tables.writing import save_table

COLUMNS = {  # by whom and less what; and the column's heading
    ("oracle", ""): "oracle",
    ("embedded", ""): "judge",
    ("embedded", "oracle"): "judge less oracle",
    ("corrected", ""): "corrected",
    ("corrected", "oracle"): "corrected less oracle",
}


def cell(row):
    sign = "+" if row["less"] else ""
    return f"{row['value']:{sign}.1f} [{row['low']:{sign}.1f}, {row['high']:{sign}.1f}]"


def layout(data):
    """The printed table: quantities down; values, differences and conclusions across."""
    table = {}
    for _, row in data[data["seed"].isna()].iterrows():
        name = f"{row['quantity']}, {NAMES[row['method']]}"
        cells = table.setdefault(name, dict.fromkeys(COLUMNS.values(), "–"))
        cells[COLUMNS[row["by"], row["less"]]] = cell(row) if pd.notna(row["value"]) else "–"
        if row["by"] != "corrected" and not row["less"]:
            exceeded = f"above {row['exceeds']:g}? {row['holds']}" if row["holds"] else "–"
            cells[f"{COLUMNS[row['by'], '']}: conclusion"] = exceeded
    return pd.DataFrame(table).T


def main():
    arguments = parse_arguments(__doc__)
    data = conclusions_data(*read_inputs(arguments.inputs))
    save_table(layout(data), data, arguments.output)


if __name__ == "__main__":
    main()
