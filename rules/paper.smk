rule claims:
    input:
        sources=[*source_files("replication.claims"), "replication/claim_registry.py"],
        claims="configs/claims.yaml",
        results=collect(
            "<results>/{experiment}/seed={seed}/evaluation/{file}",
            experiment=judged_experiments(),
            seed=PAPER["seeds"],
            file=["metrics.csv", "images.csv", "probe_verdicts.csv"],
        ),
        registered=collect(
            "<results>/{experiment}/seed={seed}/evaluation/claims_registered.json",
            experiment=judged_experiments(),
            seed=PAPER["seeds"],
        ),
        pretrained=collect(
            "<results>/{experiment}/seed={seed}/evaluation/pretrained_verdicts.csv",
            experiment=judged_experiments("win_rate", "false_positive_lead", "fewer_changed_verdicts"),
            seed=PAPER["seeds"],
        ),
        pools=collect(
            "<results>/{experiment}/seed={seed}/discard_pool.csv",
            experiment=judged_experiments("unlocked_lead"),
            seed=PAPER["seeds"],
        ),
        kernels=collect(
            "<results>/{experiment}/seed={seed}/kernel/{file}",
            experiment=judged_kernels(),
            seed=PAPER["seeds"],
            file=["examples.csv", "pairs.csv"],
        ),
        kernels_registered=collect(
            "<results>/{experiment}/seed={seed}/kernel/claims_registered.json",
            experiment=judged_kernels(),
            seed=PAPER["seeds"],
        ),
    output:
        judged="<results>/claims.csv",
        not_judged="<results>/claims_not_judged.csv",
    log:
        "<results>/logs/claims.log",
    localrule: True
    conda:
        "../environment.yaml"
    shell:
        "python -m replication.claims --claims {input.claims} --inputs {input.registered:q} {input.kernels_registered:q}"
        " --output {output.judged} > {log} 2>&1"


rule reference:
    input:
        sources=source_files("replication.reference"),
        claims="configs/claims.yaml",
        judged=rules.claims.output.judged,
        figures=collect("<figures>/{figure}.csv", figure=PAPER["figures"]),
        tables=collect("<figures>/{table}.csv", table=PAPER["tables"]),
    output:
        provenance=f"results/reference/{PRESET}/provenance.json",
    log:
        "<results>/logs/reference.log",
    localrule: True
    conda:
        "../environment.yaml"
    params:
        results=subpath(input.judged, parent=True),
        folder=subpath(output.provenance, parent=True),
    shell:
        "python -m replication.reference --results {params.results} --claims {input.claims}"
        " --output {params.folder} > {log} 2>&1"


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
