rule supervision:
    input:
        sources=rule_sources("supervision", "supervision"),
        candidates=candidates_of("candidates.csv"),
    output:
        training_set="<results>/{experiment}/seed={seed}/training_set.csv",
        summary="<results>/{experiment}/seed={seed}/supervision.csv",
        discarded="<results>/{experiment}/seed={seed}/discard_pool.csv",
    log:
        "<results>/{experiment}/seed={seed}/supervision.log",
    wildcard_constraints:
        experiment=r"(?!c_)[a-z0-9_]+",  # a curriculum run is made in phases
    localrule: True
    conda:
        "../environment.yaml"
    threads: 1
    params:
        config=stage_config("supervision"),
        candidates=subpath(input.candidates, parent=True),
    shell:
        "python -m replication.supervision --config {params.config:q} --seed {wildcards.seed}"
        " --candidates {params.candidates} --output {output.training_set} > {log} 2>&1"


rule post_training:
    input:
        sources=model_sources("post_training"),
        model=starting_model,
        candidates=candidates_of("codes.npy"),
        training_set=rules.supervision.output.training_set,
    output:
        model=directory("<results>/{experiment}/seed={seed}/model"),
    log:
        "<results>/{experiment}/seed={seed}/post_training.log",
    benchmark:
        "<results>/{experiment}/seed={seed}/post_training.benchmark.jsonl"
    wildcard_constraints:
        experiment=r"(?!c_)[a-z0-9_]+",  # a curriculum run is made in phases
    conda:
        "../environment.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime="1h",
    params:
        config=stage_config("post_training"),
        candidates=subpath(input.candidates, parent=True),
    shell:
        "python -m replication.post_training --config {params.config:q} --seed {wildcards.seed}"
        " --model {input.model} --candidates {params.candidates} --training-set {input.training_set}"
        " --output {output.model} > {log} 2>&1"


rule evaluation:
    input:
        sources=evaluation_sources,
        model=evaluated_model,
        understanding=understanding_model,
        judge=independent_judge,
        judge_models=judge_models,
        prompts=rules.prompts.output.evaluation,
        probe=rules.prompts.output.probe,
        probe_images=rules.prompts.output.probe_images,
        baseline=rules.baseline_evaluation.output.images,
        baseline_codes=rules.baseline_evaluation.output.codes,
        baseline_probes=rules.baseline_evaluation.output.probes,
    output:
        metrics=ensure("<results>/{experiment}/seed={seed}/evaluation/metrics.csv", non_empty=True),
        images="<results>/{experiment}/seed={seed}/evaluation/images.csv",
        pixels="<results>/{experiment}/seed={seed}/evaluation/images.npy",
        codes="<results>/{experiment}/seed={seed}/evaluation/codes.npy",
        probes="<results>/{experiment}/seed={seed}/evaluation/probe_verdicts.csv",
        registered="<results>/{experiment}/seed={seed}/evaluation/claims_registered.json",
        pretrained="<results>/{experiment}/seed={seed}/evaluation/pretrained_verdicts.csv",
    log:
        "<results>/{experiment}/seed={seed}/evaluation.log",
    benchmark:
        "<results>/{experiment}/seed={seed}/evaluation.benchmark.jsonl"
    wildcard_constraints:
        experiment=r"(?!baseline/)[a-z0-9_]+",
    conda:
        "../environment.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime="30m",
    params:
        config=stage_config("evaluation"),
        prompts=subpath(input.prompts, parent=True),
        baseline=subpath(input.baseline, parent=True),
        folder=subpath(output.images, parent=True),
        shard=shard_option,
    shell:
        "python -m replication.evaluation --config {params.config:q} --seed {wildcards.seed}"
        " --model {input.model} --understanding {input.understanding} --judge-models {input.judge_models}"
        " --judge {input.judge} --prompts {params.prompts} --baseline {params.baseline}"
        " {params.shard} --output {params.folder} > {log} 2>&1"


rule sft:
    input:
        collect(rules.evaluation.output.metrics, experiment=["sft", "sft_accept_all"], seed=PAPER["seeds"]),
    localrule: True


rule dpo:
    input:
        collect("<results>/dpo/seed={seed}/evaluation/metrics.csv", seed=PAPER["seeds"]),
    localrule: True
