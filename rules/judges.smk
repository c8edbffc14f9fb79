# Judges from the model hub (configs/judge): downloaded once, each at its pinned commit, where Snakemake runs. None for the
# oracle, nor for a judge without a repository.
rule hub_judge:
    input:
        sources="replication/hub.py",
    output:
        model=directory("<results>/hub/{judge}"),
    log:
        "<results>/logs/judge={judge}.log",
    wildcard_constraints:
        judge=r"[a-z0-9_]+",
    localrule: True
    conda:
        "../environment.yaml"
    params:
        config=judge_download,
    shell:
        "python -m replication.hub --config {params.config:q} --downloads results/downloads"
        " --output {output.model} > {log} 2>&1"
