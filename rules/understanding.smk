# General questions about images (paper 4.5), asked by a harness in an environment of its own: --software-deployment-method conda.
rule understanding_scores:
    input:
        sources=model_sources("understanding"),
        plug_in="replication/harness_model.py",
        model=evaluated_model,
    output:
        scores=ensure("<results>/{experiment}/seed={seed}/understanding/scores.csv", non_empty=True),
    log:
        "<results>/{experiment}/seed={seed}/understanding.log",
    benchmark:
        "<results>/{experiment}/seed={seed}/understanding.benchmark.jsonl"
    conda:
        "../envs/understanding.yaml"
    threads: 1
    resources:
        mem_mb=24000,
        runtime="8h",
    params:
        config=stage_config("understanding"),
        base=base_number,
        folder=subpath(output.scores, parent=True),
    shell:
        "python -m replication.understanding --config {params.config:q} --seed {wildcards.seed} --base {params.base}"
        " --model {input.model} --output {params.folder} > {log} 2>&1"


rule understanding:
    input:
        asked_models,
    localrule: True
