NAME = load_stage("base_model", PRESET, BASE, overrides=OVERRIDES)["name"]

if PAPER["choices"]["prompts"] == "embedded":  # others: rules/downloads.smk

    rule prompts:
        input:
            sources=source_files("replication.prompts"),
        output:
            train="<results>/prompts/train.csv",
            evaluation="<results>/prompts/evaluation.csv",
            probe="<results>/prompts/probe.csv",
            probe_images="<results>/prompts/probe_images.npy",
        log:
            "<results>/logs/prompts.log",
        localrule: True
        conda:
            "../environment.yaml"
        threads: 1
        params:
            config=stage_config("prompts"),
            folder=subpath(output.train, parent=True),
        shell:
            "python -m replication.prompts --config {params.config:q} --output {params.folder} > {log} 2>&1"


rule base_model:
    input:
        sources=branch(BASE == "scratch", then=pretraining_sources, otherwise="replication/base_model.py"),
        shipped=branch(
            BASE == "shipped",
            then=[
                f"base_models/{NAME}/SHA256SUMS",  # stands for the files below, whatever their times
                ancient(f"base_models/{NAME}/base={{base}}/model.safetensors"),
                ancient(f"base_models/{NAME}/base={{base}}/quality.csv"),
            ],
            otherwise=[],
        ),
    output:
        model=directory("<results>/base/base={base}"),
        quality="<results>/base/base={base}/quality.csv",
    log:
        "<results>/logs/base={base}.log",
    benchmark:
        "<results>/logs/base={base}.benchmark.jsonl"
    conda:
        "../environment.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime="6h",
    params:
        config=stage_config("base_model"),
    shell:
        "python -m replication.base_model --config {params.config:q} --base {wildcards.base}"
        " --output {output.model} > {log} 2>&1"
