rule reference:
    input:
        sources=source_files("replication.reference"),
        claims="configs/claims.yaml",
        judged=rules.claims.output.judged,
        figures=collect("<figures>/{figure}.csv", figure=PAPER["figures"]),
        tables=collect("<figures>/{table}.csv", table=PAPER["tables"]),
        shown=files_shown(),
    output:
        provenance=Path("results/reference", PRESET, *OWN_FOLDER, "provenance.json"),
    log:
        "<results>/logs/reference.log",
    localrule: True
    conda:
        "../environment.yaml"
    params:
        results=subpath(input.judged, parent=True),
        figures=lambda wildcards, input: Path(input.figures[0]).parent,
        command=f"snakemake --cores all reference --config {as_typed({'preset': PRESET, **config})}",
        folder=subpath(output.provenance, parent=True),
    shell:
        "python -m replication.reference --results {params.results} --figures {params.figures} --command {params.command:q}"
        " --claims {input.claims} --shown {input.shown:q} --output {params.folder} > {log} 2>&1"


# What all runs share: made before `python -m replication.restore` puts runs back, or it would be newer than they.
rule shared:
    input:
        collect("<results>/base/base={base}/quality.csv", base=PAPER["bases"]),
        collect("<results>/candidates/seed={seed}/codes.npy", seed=PAPER["seeds"]),
    localrule: True


rule figure:
    input:
        sources=figure_sources,
        paper_values=PAPER_VALUES,
        results=figure_results,
    output:
        pdf="<figures>/{figure}.pdf",
        png=report(
            "<figures>/{figure}.png",
            caption="captions/figure.rst",
            category="Figures",
            labels={"figure": "{figure}", "shown as": "image"},
        ),
        data=report(
            "<figures>/{figure}.csv",
            caption="captions/figure.rst",
            category="Figures",
            labels={"figure": "{figure}", "shown as": "data"},
        ),
    log:
        "<results>/logs/{figure}.log",
    localrule: True
    conda:
        "../environment.yaml"
    params:
        caption=lookup("figures/{figure}/caption", within=PAPER),
        prefix=subpath(output.pdf, strip_suffix=".pdf"),
    shell:
        "python -m replication.figures.{wildcards.figure} --inputs {input.results:q}"
        " --output {params.prefix} > {log} 2>&1"


rule table:
    input:
        sources=table_sources,
        paper_values=PAPER_VALUES,
        results=table_results,
    output:
        tex="<figures>/{table}.tex",
        markdown="<figures>/{table}.md",
        data=report(
            "<figures>/{table}.csv",
            caption="captions/table.rst",
            category="Tables",
            labels={"table": "{table}"},
        ),
    log:
        "<results>/logs/{table}.log",
    localrule: True
    conda:
        "../environment.yaml"
    params:
        caption=lookup("tables/{table}/caption", within=PAPER),
        prefix=subpath(output.tex, strip_suffix=".tex"),
    shell:
        "python -m replication.tables.{wildcards.table} --inputs {input.results:q}"
        " --output {params.prefix} > {log} 2>&1"


# What a reader of the folder needs beside the pictures: the captions of configs/paper.yaml.
rule gallery:
    input:
        template="rules/captions/gallery.md",
        figures=collect("<figures>/{figure}.png", figure=shown_by_default("figures")),
        tables=collect("<figures>/{table}.md", table=shown_by_default("tables")),
    output:
        "<figures>/README.md",
    log:
        "<results>/logs/gallery.log",
    localrule: True
    params:
        preset=PRESET,
        seeds=PAPER["seeds"],
        figures=PAPER["figures"],
        tables=PAPER["tables"],
        by_default=[*shown_by_default("figures"), *shown_by_default("tables")],
        families=lambda wildcards: {kind: PAPER["families"][kind] if OTHERS else {} for kind in ("figures", "tables")},
    template_engine:
        "jinja2"


# Times differ from run to run, so that this table stays beside the results.
rule compute:
    input:
        sources=source_files("replication.compute"),
        figures=collect("<figures>/{figure}.csv", figure=shown_by_default("figures")),
        tables=collect("<figures>/{table}.csv", table=shown_by_default("tables")),
    output:
        table=report(
            "<results>/compute.csv", caption="captions/table.rst", category="Tables", labels={"table": "compute"}
        ),
    log:
        "<results>/logs/compute.log",
    localrule: True
    conda:
        "../environment.yaml"
    params:
        results=subpath(output.table, parent=True),
        caption=PAPER["compute"],
    shell:
        "python -m replication.compute --results {params.results} --output {output.table} > {log} 2>&1"
