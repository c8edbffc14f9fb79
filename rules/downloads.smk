# What a preset of the paper's scale reads from the network, once. These jobs run where Snakemake does, as the nodes of a cluster
# often have no network; all others need none.
if PAPER["choices"]["prompts"] != "embedded":

    PROMPTS = load_stage("prompts", PRESET, BASE, overrides=OVERRIDES)

    rule benchmark_files:
        input:
            sources=source_files("replication.downloads"),
        output:
            folder=directory("results/downloads/prompts"),
        log:
            "<results>/logs/benchmark_files.log",
        localrule: True
        conda:
            "../environment.yaml"
        params:
            config=lambda wildcards: canonical({key: PROMPTS[key] for key in ("mirror", "address", "benchmarks")}),
        shell:
            "python -m replication.downloads --config {params.config:q} --output {output.folder} > {log} 2>&1"

    rule prompts:
        input:
            sources=source_files("replication.benchmark_prompts"),
            files=rules.benchmark_files.output.folder,
        output:
            train="<results>/prompts/train.csv",
            evaluation="<results>/prompts/evaluation.csv",
            leaks="<results>/prompts/leaks.csv",
            probe="<results>/prompts/probe.csv",
            probe_images="<results>/prompts/probe_images.npy",
        log:
            "<results>/logs/prompts.log",
        localrule: True
        conda:
            "../environment.yaml"
        params:
            config=lambda wildcards: canonical(
                {key: value for key, value in PROMPTS.items() if key.startswith(("train", "evaluation"))}
            ),
            folder=subpath(output.train, parent=True),
        shell:
            "python -m replication.benchmark_prompts --config {params.config:q} --files {input.files}"
            " --output {params.folder} > {log} 2>&1"


if BASE == "hub":

    ruleorder: hub_model > base_model

    rule hub_model:
        input:
            sources="replication/hub.py",
        output:
            model=directory("<results>/base/base={base}"),
        log:
            "<results>/logs/base={base}.log",
        localrule: True
        conda:
            "../environment.yaml"
        params:
            config=stage_config("base_model"),
        shell:
            "python -m replication.hub --config {params.config:q} --downloads results/downloads"
            " --output {output.model} > {log} 2>&1"
