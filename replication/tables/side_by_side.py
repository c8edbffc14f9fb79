"""The printed form of the paper's cells beside ours (replication/side_by_side.py): what tables 5 and 6 share."""

import numpy as np
import pandas as pd

from replication.results import BENCHMARKS, parse_arguments, read_metrics
from replication.side_by_side import METRICS, SHOWN_METHODS, table_data
from replication.style import label
from replication.tables.writing import save_table


def cell(row):
    """ "paper | ours ± tolerance", with an asterisk where they differ beyond noise, and what of it were unparsed answers."""
    if row["verdict"] == "not run":
        return f"{row['paper']:.2f} | not run"
    allowed = "" if np.isnan(row["tolerance"]) else f" ± {row['tolerance']:.1f}"
    unparsed = f" ({row['unparsed']:.1f} unparsed)" if row["unparsed"] > 0 else ""
    return f"{row['paper']:.2f} | {row['ours']:.2f}{allowed}{'*' if row['verdict'] == 'beyond noise' else ''}{unparsed}"


def layout(data, benchmark):
    """The printed table: methods x metrics down, subtasks across."""
    cells = data.assign(cell=data.apply(cell, axis=1)).pivot(
        index=["method", "metric"], columns="subtask", values="cell"
    )
    table = cells.loc[
        [(method, metric) for method in SHOWN_METHODS for metric in METRICS], [*BENCHMARKS[benchmark], "overall"]
    ]
    table.index = pd.MultiIndex.from_tuples(
        [(SHOWN_METHODS[method], METRICS[metric]) for method, metric in table.index]
    )
    return table.rename(columns=label)


def write(description, benchmark):
    """The command line of a table."""
    arguments = parse_arguments(description)
    data = table_data(read_metrics(arguments.inputs), benchmark)
    save_table(layout(data, benchmark), data, arguments.output)
