rule baseline_evaluation:
    input:
        sources=evaluation_sources,
        model=base_model,
        judge=independent_judge,
        judge_models=judge_models,
        prompts=rules.prompts.output.evaluation,
        probe=rules.prompts.output.probe,
        probe_images=rules.prompts.output.probe_images,
    output:
        metrics=ensure("<results>/baseline/seed={seed}/evaluation/metrics.csv", non_empty=True),
        images="<results>/baseline/seed={seed}/evaluation/images.csv",
        pixels="<results>/baseline/seed={seed}/evaluation/images.npy",
        codes="<results>/baseline/seed={seed}/evaluation/codes.npy",
        probes="<results>/baseline/seed={seed}/evaluation/probe_verdicts.csv",
        registered="<results>/baseline/seed={seed}/evaluation/claims_registered.json",
    log:
        "<results>/baseline/seed={seed}/evaluation.log",
    benchmark:
        "<results>/baseline/seed={seed}/evaluation.benchmark.jsonl"
    conda:
        "../environment.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime="30m",
    params:
        config=stage_config("evaluation"),
        prompts=subpath(input.prompts, parent=True),
        folder=subpath(output.images, parent=True),
        shard=shard_option,
    shell:
        "python -m replication.evaluation --config {params.config:q} --seed {wildcards.seed}"
        " --model {input.model} --judge-models {input.judge_models} --judge {input.judge} --prompts {params.prompts}"
        " {params.shard} --output {params.folder} > {log} 2>&1"


rule baseline:
    input:
        collect("<results>/baseline/seed={seed}/evaluation/metrics.csv", seed=PAPER["seeds"]),
        collect("<figures>/{figure}.pdf", figure=["fig2_nonunified", "fig3_weak_generation"]),
        collect("<figures>/{table}.tex", table=[*{"tab_base_model"} & shown_by_default("tables").keys()]),
    localrule: True
