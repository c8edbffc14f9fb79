"""Claims, family by family: the verdict on every registered claim that the arms of a family judge (see table claims).

Inputs: for each family claims.csv and claims_not_judged.csv, in a folder that bears its name.
"""

import pandas as pd

from replication.families import family_label
from replication.results import parse_arguments
from replication.tables.writing import latex, markdown, write_table


def ledger(files):
    """The rows of claims.csv of all families, with a column family first."""
    frames = [pd.read_csv(file) for file in files]
    named = [frame.assign(family=file.parent.name) for frame, file in zip(frames, files, strict=True)]
    table = pd.concat(named, ignore_index=True)
    return table[["family", *(column for column in table if column != "family")]]


def cell(row):
    return f"{row['verdict']}: {row['estimate']:.3g} [{row['ci_low']:.3g}, {row['ci_high']:.3g}]"


def layout(claims):
    """The printed table: one row per claim that any family judges, one column per family."""
    texts = claims.assign(text=claims.apply(cell, axis=1)).pivot(index="statement", columns="family", values="text")
    texts = texts.loc[claims["statement"].unique()].fillna("not judged").rename(columns=family_label)
    texts.index.name = texts.columns.name = None
    return texts


def main():
    arguments = parse_arguments(__doc__)
    judged = ledger([file for file in arguments.inputs if file.name == "claims.csv"])
    rest = ledger([file for file in arguments.inputs if file.name == "claims_not_judged.csv"])
    table = layout(judged)
    data = pd.concat([judged, rest.assign(verdict="not judged: " + rest["reason"])], ignore_index=True)
    tex = latex(table, "p{8cm}" + "p{4cm}" * table.shape[1])
    write_table(tex, markdown(table), data.drop(columns="reason"), arguments.output)


if __name__ == "__main__":
    main()
