"""Claims: every statement of the paper that was registered, its verdict, and what the verdict rests on.

Below, what the verdicts would be if the imperfect judge said which images are right; then the claims without a verdict, because
they were not run here or were registered too late, with the reason.
Inputs: claims.csv, claims_by_judge.csv and claims_not_judged.csv, in this order.
"""

import pandas as pd

from replication.results import parse_arguments
from replication.tables.writing import latex, markdown, write_table

WIDE = "p{5.5cm}p{2cm}p{2.4cm}rp{3cm}p{3.4cm}rp{3cm}"  # for a page on its side
NARROW = "p{8cm}p{6cm}"
BY_JUDGE = "p{10cm}p{3cm}p{3cm}p{4cm}"


def intervals(rows):
    return [
        "–" if pd.isna(row.estimate) else f"{row.estimate:.3g} [{row.ci_low:.3g}, {row.ci_high:.3g}]"
        for row in rows.itertuples()
    ]


def layout(claims):
    """The printed table: one row per claim."""
    paper = [f"{value:.3g}" if pd.notna(value) else "–" for value in claims["paper_value"]]
    columns = {"verdict": claims["verdict"].to_list(), "estimate [95 % interval]": intervals(claims), "paper": paper}
    columns |= {name: claims[name].astype(str).to_list() for name in ("criterion", "test")}
    columns |= {"runs": claims["seeds"].astype(str).to_list(), "source in the paper": claims["source"].to_list()}
    return pd.DataFrame(columns, index=claims["statement"].to_list())


def second_opinion(by_judge):
    """The printed table of claims that ask which images are right, by the truth and by the imperfect judge."""
    columns = {"by the truth": by_judge["verdict"].to_list(), "by the imperfect judge": by_judge["by_judge"].to_list()}
    columns["its estimate [95 % interval]"] = intervals(by_judge)
    return pd.DataFrame(columns, index=by_judge["statement"].to_list())


def rest(not_judged):
    """The printed list of claims without verdict: a withdrawn one is known by its id only."""
    names = not_judged["statement"].where(not_judged["statement"].notna(), not_judged["claim"])
    return pd.DataFrame({"no verdict, because": not_judged["reason"].to_list()}, index=names.to_list())


def main():
    arguments = parse_arguments(__doc__)
    claims, by_judge, not_judged = (pd.read_csv(file) for file in arguments.inputs)
    tables = [(layout(claims), WIDE), (second_opinion(by_judge), BY_JUDGE), (rest(not_judged), NARROW)]
    tables = [(table, columns) for table, columns in tables if len(table)]
    tex = "\n\\bigskip\n\n".join(latex(table, columns) for table, columns in tables)
    write_table(tex, "\n".join(markdown(table) for table, _ in tables), claims, arguments.output)


if __name__ == "__main__":
    main()
