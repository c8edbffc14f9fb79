"""How every table is written: LaTeX (booktabs), Markdown, and the numbers as CSV."""

from replication.files import atomic_file


def save_table(table, data, prefix):
    """Write `table` (formatted strings) to `prefix`.tex and .md, and `data` (the numbers) to `prefix`.csv."""
    latex = table.style.format(escape="latex").format_index(escape="latex", axis=0).format_index(escape="latex", axis=1)
    column_format = "l" * table.index.nlevels + "r" * table.shape[1]
    texts = {
        ".tex": latex.to_latex(hrules=True, column_format=column_format, multicol_align="c", multirow_align="t"),
        ".md": markdown(table),
    }
    for suffix, text in texts.items():
        with atomic_file(prefix.with_name(prefix.name + suffix)) as partial:
            partial.write_text(
                text.replace("↑", r"$\uparrow$").replace("↓", r"$\downarrow$") if suffix == ".tex" else text
            )
    with atomic_file(prefix.with_name(prefix.name + ".csv")) as partial:
        data.to_csv(partial, index=False, float_format="%.6g")


def markdown(table):
    """Flat Markdown: column levels joined by ": ", an index value is written where it changes."""
    flat = table.copy()
    flat.columns = [name if isinstance(name, str) else ": ".join(name) for name in flat.columns]
    flat = flat.reset_index()
    names = [""] * table.index.nlevels + list(flat.columns[table.index.nlevels :])
    first = flat.iloc[:, 0]
    if table.index.nlevels > 1:
        flat.isetitem(0, first.where(first != first.shift(), ""))
    return flat.to_markdown(index=False, headers=names, disable_numparse=True) + "\n"
