# Families side by side. The others that a preset names are every rule again, with a configuration and a folder of their own.
for OTHER in OTHERS:
    PREFIX = f"{OTHER}_"

    module:
        name: OTHER
        snakefile:
            "../Snakefile"
        config:
            {**config, "family": OTHER}

    use rule * from OTHER as PREFIX*


use rule figure as family_figure with:
    input:
        sources=figure_sources,
        paper_values=PAPER_VALUES,
        results=family_figure_results,
    output:
        pdf="<figures>/families/{figure}.pdf",
        png=report(
            "<figures>/families/{figure}.png",
            caption="captions/figure.rst",
            category="Families",
            labels={"figure": "{figure}", "shown as": "image"},
        ),
        data=report(
            "<figures>/families/{figure}.csv",
            caption="captions/figure.rst",
            category="Families",
            labels={"figure": "{figure}", "shown as": "data"},
        ),
    log:
        "<results>/logs/families/{figure}.log",
    wildcard_constraints:
        figure="|".join(PAPER["families"]["figures"]),
    localrule: True
    params:
        caption=lookup("families/figures/{figure}/caption", within=PAPER),
        prefix=subpath(output.pdf, strip_suffix=".pdf"),


use rule table as family_table with:
    input:
        sources=table_sources,
        paper_values=PAPER_VALUES,
        results=family_table_results,
    output:
        tex="<figures>/families/{table}.tex",
        markdown="<figures>/families/{table}.md",
        data=report(
            "<figures>/families/{table}.csv",
            caption="captions/table.rst",
            category="Families",
            labels={"table": "{table}"},
        ),
    log:
        "<results>/logs/families/{table}.log",
    wildcard_constraints:
        table="|".join(PAPER["families"]["tables"]),
    localrule: True
    params:
        caption=lookup("families/tables/{table}/caption", within=PAPER),
        prefix=subpath(output.tex, strip_suffix=".tex"),


rule families:
    input:
        family_figures_and_tables,
    localrule: True
