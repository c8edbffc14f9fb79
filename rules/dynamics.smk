rule simulation:
    input:
        sources=source_files("replication.dynamics.simulation"),
    output:
        table="<results>/dynamics/simulation.csv",
    log:
        "<results>/dynamics/simulation.log",
    benchmark:
        "<results>/dynamics/simulation.benchmark.jsonl"
    conda:
        "../environment.yaml"
    threads: 1
    params:
        config=stage_config("simulation"),
    shell:
        "python -m replication.dynamics.simulation --config {params.config:q} --output {output.table} > {log} 2>&1"


rule dynamics:
    input:
        "<figures>/simulation.pdf",
    localrule: True
