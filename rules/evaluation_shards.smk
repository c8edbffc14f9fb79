# Where evaluation_shards is above 1, an evaluation is so many jobs, which draw and judge, and one that takes seconds and needs no
# GPU: it puts their tables together and measures. Where it is 1, one job does all of it, and nothing here is used.
ruleorder: merge_baseline_evaluation > merge_evaluation > baseline_evaluation > evaluation


use rule baseline_evaluation as baseline_evaluation_shard with:
    output:
        images="<results>/baseline/seed={seed}/shard={part}/evaluation/images.csv",
        pixels="<results>/baseline/seed={seed}/shard={part}/evaluation/images.npy",
        codes="<results>/baseline/seed={seed}/shard={part}/evaluation/codes.npy",
        probes="<results>/baseline/seed={seed}/shard={part}/evaluation/probe_verdicts.csv",
        registered="<results>/baseline/seed={seed}/shard={part}/evaluation/claims_registered.json",
    log:
        "<results>/baseline/seed={seed}/shard={part}/evaluation.log",
    benchmark:
        "<results>/baseline/seed={seed}/shard={part}/evaluation.benchmark.jsonl"


use rule evaluation as evaluation_shard with:
    output:
        images="<results>/{experiment}/seed={seed}/shard={part}/evaluation/images.csv",
        pixels="<results>/{experiment}/seed={seed}/shard={part}/evaluation/images.npy",
        codes="<results>/{experiment}/seed={seed}/shard={part}/evaluation/codes.npy",
        probes="<results>/{experiment}/seed={seed}/shard={part}/evaluation/probe_verdicts.csv",
        registered="<results>/{experiment}/seed={seed}/shard={part}/evaluation/claims_registered.json",
        pretrained="<results>/{experiment}/seed={seed}/shard={part}/evaluation/pretrained_verdicts.csv",
    log:
        "<results>/{experiment}/seed={seed}/shard={part}/evaluation.log",
    benchmark:
        "<results>/{experiment}/seed={seed}/shard={part}/evaluation.benchmark.jsonl"


rule merge_evaluation:
    input:
        sources=source_files("replication.evaluation_shards"),
        images=evaluation_parts("{{experiment}}", "images.csv"),
        pixels=evaluation_parts("{{experiment}}", "images.npy"),
        codes=evaluation_parts("{{experiment}}", "codes.npy"),
        probes=evaluation_parts("{{experiment}}", "probe_verdicts.csv"),
        registered=evaluation_parts("{{experiment}}", "claims_registered.json"),
        pretrained=evaluation_parts("{{experiment}}", "pretrained_verdicts.csv"),
        model=evaluated_model,
        baseline="<results>/baseline/seed={seed}/evaluation/metrics.csv",
    output:
        metrics=ensure("<results>/{experiment}/seed={seed}/evaluation/metrics.csv", non_empty=True),
        images="<results>/{experiment}/seed={seed}/evaluation/images.csv",
        pixels="<results>/{experiment}/seed={seed}/evaluation/images.npy",
        codes="<results>/{experiment}/seed={seed}/evaluation/codes.npy",
        probes="<results>/{experiment}/seed={seed}/evaluation/probe_verdicts.csv",
        registered="<results>/{experiment}/seed={seed}/evaluation/claims_registered.json",
        pretrained="<results>/{experiment}/seed={seed}/evaluation/pretrained_verdicts.csv",
    log:
        "<results>/{experiment}/seed={seed}/merge_evaluation.log",
    wildcard_constraints:
        experiment=r"(?!baseline/)[a-z0-9_]+",
        seed=r"\d+" if EVALUATION_SHARDS > 1 else "(?!)",  # nothing matches
    localrule: True
    conda:
        "../environment.yaml"
    threads: 1
    params:
        config=stage_config("evaluation"),
        shards=lambda wildcards, input: [Path(table).parent for table in input.images],
        before=lambda wildcards, input: f"--baseline {Path(input.baseline).parent}" if input.get("baseline") else "",
        folder=subpath(output.images, parent=True),
    shell:
        "python -m replication.evaluation_shards --config {params.config:q} --seed {wildcards.seed} --model {input.model}"
        " {params.before} --shards {params.shards} --output {params.folder} > {log} 2>&1"


use rule merge_evaluation as merge_baseline_evaluation with:
    input:
        sources=source_files("replication.evaluation_shards"),
        images=evaluation_parts("baseline", "images.csv"),
        pixels=evaluation_parts("baseline", "images.npy"),
        codes=evaluation_parts("baseline", "codes.npy"),
        probes=evaluation_parts("baseline", "probe_verdicts.csv"),
        registered=evaluation_parts("baseline", "claims_registered.json"),
        model=base_model,
    output:
        metrics=ensure("<results>/baseline/seed={seed}/evaluation/metrics.csv", non_empty=True),
        images="<results>/baseline/seed={seed}/evaluation/images.csv",
        pixels="<results>/baseline/seed={seed}/evaluation/images.npy",
        codes="<results>/baseline/seed={seed}/evaluation/codes.npy",
        probes="<results>/baseline/seed={seed}/evaluation/probe_verdicts.csv",
        registered="<results>/baseline/seed={seed}/evaluation/claims_registered.json",
    log:
        "<results>/baseline/seed={seed}/merge_evaluation.log",
    localrule: True
