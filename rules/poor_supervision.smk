rule quality_check:
    input:
        sources=model_sources("quality_check"),
        model=starting_model,
        judge=independent_judge,
        candidates=candidates_of("candidates.csv"),
        codes=candidates_of("codes.npy"),
        training_set=rules.supervision.output.training_set,
    output:
        measures="<results>/{experiment}/seed={seed}/quality_check.csv",
    log:
        "<results>/{experiment}/seed={seed}/quality_check.log",
    benchmark:
        "<results>/{experiment}/seed={seed}/quality_check.benchmark.jsonl"
    wildcard_constraints:
        experiment=r"(?!c_)[a-z0-9_]+",  # a curriculum run has no single training set
    conda:
        "../environment.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime="10m",
    params:
        config=stage_config("quality_check"),
        candidates=subpath(input.candidates, parent=True),
    shell:
        "python -m replication.quality_check --config {params.config:q} --seed {wildcards.seed}"
        " --model {input.model} --judge {input.judge} --candidates {params.candidates}"
        " --training-set {input.training_set} --output {output.measures} > {log} 2>&1"


rule poor_supervision:
    input:
        "<figures>/co_degradation.pdf",
    localrule: True
