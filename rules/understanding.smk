# General questions about images (paper 4.6), asked by a harness in an environment of its own: --software-deployment-method conda.
def base_number(wildcards):
    return PAPER["bases"][int(wildcards.seed) % len(PAPER["bases"])]


def asked_models(wildcards):
    """The scores of the models in the paper's Table 8: base models, each once, and what SFT made of them."""
    if BASE != "hub":
        raise SystemExit(
            "The target understanding asks in plain English, and the embedded models know 49 words: add --config preset=paper."
        )
    scores = "<results>/{experiment}/seed={seed}/understanding/scores.csv"
    before = collect(scores, experiment="baseline", seed=PAPER["seeds"][: len(PAPER["bases"])])
    return before + collect(scores, experiment="sft", seed=PAPER["seeds"])


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
