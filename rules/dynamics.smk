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


rule kernel:
    input:
        sources=model_sources("dynamics.kernel"),
        model=starting_model,
        trained=rules.post_training.output.model,
        candidates=candidates_of("codes.npy"),
        training_set=rules.supervision.output.training_set,
        baseline=rules.baseline_evaluation.output.images,
        baseline_codes=rules.baseline_evaluation.output.codes,
        verdicts=rules.evaluation.output.pretrained,
    output:
        examples="<results>/{experiment}/seed={seed}/kernel/examples.csv",
        pairs="<results>/{experiment}/seed={seed}/kernel/pairs.csv",
        alignment="<results>/{experiment}/seed={seed}/kernel/alignment.csv",
        steps="<results>/{experiment}/seed={seed}/kernel/steps.csv",
        estimators="<results>/{experiment}/seed={seed}/kernel/estimators.csv",
        registered="<results>/{experiment}/seed={seed}/kernel/claims_registered.json",
    log:
        "<results>/{experiment}/seed={seed}/kernel.log",
    benchmark:
        "<results>/{experiment}/seed={seed}/kernel.benchmark.jsonl"
    wildcard_constraints:
        experiment=r"(?!c_)[a-z0-9_]+",  # a curriculum run has no single training set
    conda:
        "../environment.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime="15m",
    params:
        config=stage_config("kernel"),
        candidates=subpath(input.candidates, parent=True),
        baseline=subpath(input.baseline, parent=True),
        folder=subpath(output.examples, parent=True),
    shell:
        "python -m replication.dynamics.kernel --config {params.config:q} --seed {wildcards.seed}"
        " --model {input.model} --trained {input.trained} --candidates {params.candidates}"
        " --training-set {input.training_set} --baseline {params.baseline} --verdicts {input.verdicts}"
        " --output {params.folder} > {log} 2>&1"


rule sharing:
    input:
        sources=model_sources("dynamics.sharing"),
        model=starting_model,
        candidates=candidates_of("codes.npy"),
        training_set=rules.supervision.output.training_set,
        baseline=rules.baseline_evaluation.output.images,
        baseline_codes=rules.baseline_evaluation.output.codes,
        verdicts=rules.evaluation.output.pretrained,
    output:
        table="<results>/{experiment}/seed={seed}/sharing.csv",
    log:
        "<results>/{experiment}/seed={seed}/sharing.log",
    benchmark:
        "<results>/{experiment}/seed={seed}/sharing.benchmark.jsonl"
    wildcard_constraints:
        experiment=r"(?!c_)[a-z0-9_]+",  # as above
    conda:
        "../environment.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime="15m",
    params:
        config=stage_config("sharing"),
        candidates=subpath(input.candidates, parent=True),
        baseline=subpath(input.baseline, parent=True),
    shell:
        "python -m replication.dynamics.sharing --config {params.config:q} --seed {wildcards.seed}"
        " --model {input.model} --candidates {params.candidates} --training-set {input.training_set}"
        " --baseline {params.baseline} --verdicts {input.verdicts} --output {output.table} > {log} 2>&1"


rule understanding_branch:
    input:
        sources=model_sources("dynamics.copies"),
        pretrained=base_model,
        trained=evaluated_model,
    output:
        model=directory("<results>/{experiment}/seed={seed}/understanding_branch"),
    log:
        "<results>/{experiment}/seed={seed}/understanding_branch.log",
    conda:
        "../environment.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime="10m",
    params:
        config=stage_config("copies"),
    shell:
        "python -m replication.dynamics.copies --config {params.config:q} --pretrained {input.pretrained}"
        " --trained {input.trained} --output {output.model} > {log} 2>&1"


rule dynamics:
    input:
        collect("<figures>/{figure}.pdf", figure=["simulation", "kernel", "fig7_dynamics", "interventions"]),
        collect("<figures>/{table}.tex", table=["tab_kernel", "claims_dynamics"]),
    localrule: True
