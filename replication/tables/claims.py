"""Claims: every statement of the paper that was registered, its verdict, and what the verdict rests on.

Claims without a verdict, because they were not run here or were registered too late, stand below, with the reason.
Inputs: claims.csv and claims_not_judged.csv, in this order.
"""

import pandas as pd

from replication.results import parse_arguments
from replication.tables.writing import latex, markdown, write_table

WIDE = "p{5.5cm}p{2cm}p{2.4cm}rp{3cm}p{3.4cm}rp{3cm}"  # for a page on its side
NARROW = "p{8cm}p{6cm}"


def layout(claims):
    """The printed table: one row per claim."""
    interval = [
        "–" if pd.isna(row.estimate) else f"{row.estimate:.3g} [{row.ci_low:.3g}, {row.ci_high:.3g}]"
        for row in claims.itertuples()
    ]
    paper = [f"{value:.3g}" if pd.notna(value) else "–" for value in claims["paper_value"]]
    columns = {"verdict": claims["verdict"].to_list(), "estimate [95 % interval]": interval, "paper": paper}
    columns |= {name: claims[name].astype(str).to_list() for name in ("criterion", "test")}
    columns |= {"runs": claims["seeds"].astype(str).to_list(), "source in the paper": claims["source"].to_list()}
    return pd.DataFrame(columns, index=claims["statement"].to_list())


def rest(not_judged):
    """The printed list of claims without verdict: a withdrawn one is known by its id only."""
    names = not_judged["statement"].where(not_judged["statement"].notna(), not_judged["claim"])
    return pd.DataFrame({"no verdict, because": not_judged["reason"].to_list()}, index=names.to_list())


def main():
    arguments = parse_arguments(__doc__)
    claims, not_judged = (pd.read_csv(file) for file in arguments.inputs)
    tables = [(layout(claims), WIDE)]
    if len(not_judged):
        tables.append((rest(not_judged), NARROW))
    tex = "\n\\bigskip\n\n".join(latex(table, columns) for table, columns in tables)
    write_table(tex, "\n".join(markdown(table) for table, _ in tables), claims, arguments.output)


if __name__ == "__main__":
    main()
