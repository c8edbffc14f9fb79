"""How every table is written: LaTeX (booktabs), Markdown, and the numbers as CSV."""

from replication.files import atomic_file


def save_table(table, data, prefix):
    """Write `table` (formatted strings) to `prefix`.tex and .md, and `data` (the numbers) to `prefix`.csv."""
    write_table(latex(table, "l" * table.index.nlevels + "r" * table.shape[1]), markdown(table), data, prefix)


def write_table(tex, text, data, prefix):
    """Write LaTeX, Markdown and numbers beside each other."""
    for suffix, content in ((".tex", tex), (".md", text)):
        with atomic_file(prefix.with_name(prefix.name + suffix)) as partial:
            partial.write_text(content)
    with atomic_file(prefix.with_name(prefix.name + ".csv")) as partial:
        data.to_csv(partial, index=False, float_format="%.6g")


def latex(table, column_format):
    """A tabular with the rules of booktabs; arrows become mathematics."""
    styled = (
        table.style.format(escape="latex").format_index(escape="latex", axis=0).format_index(escape="latex", axis=1)
    )
    text = styled.to_latex(hrules=True, column_format=column_format, multicol_align="c", multirow_align="t")
    return text.translate({ord("↑"): r"$\uparrow$", ord("↓"): r"$\downarrow$", ord("|"): r"\textbar{}"})


def markdown(table):
    """Flat Markdown: column levels joined by ": ", an index value is written where it changes."""
    flat = table.copy()
    flat.columns = [name if isinstance(name, str) else ": ".join(name) for name in flat.columns]
    flat = flat.reset_index()
    names = [""] * table.index.nlevels + list(flat.columns[table.index.nlevels :])
    first = flat.iloc[:, 0]
    if table.index.nlevels > 1:
        flat.isetitem(0, first.where(first != first.shift(), ""))
    flat = flat.map(lambda cell: cell.replace("|", r"\|"))
    return flat.to_markdown(index=False, headers=names, disable_numparse=True) + "\n"
