rule phase_candidates:
    input:
        sources=model_sources("candidates"),
        model=model_for("images_from"),
        judge=model_for("verdicts_from"),
        prompts=phase_before("next_prompts.csv"),
    output:
        table="<results>/{experiment}/seed={seed}/phase={phase}{shard}/candidates/candidates.csv",
        codes="<results>/{experiment}/seed={seed}/phase={phase}{shard}/candidates/codes.npy",
    log:
        "<results>/{experiment}/seed={seed}/phase={phase}{shard}/candidates.log",
    benchmark:
        "<results>/{experiment}/seed={seed}/phase={phase}{shard}/candidates.benchmark.jsonl"
    wildcard_constraints:
        experiment=r"c_[a-z0-9_]+",
        phase=r"[1-9]\d*",
    conda:
        "../environment.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime="30m",
    params:
        config=stage_config("candidates"),
        shard=shard_option,
        folder=subpath(output.table, parent=True),
    shell:
        "python -m replication.candidates --config {params.config:q} --seed {wildcards.seed}"
        " --model {input.model} --judge {input.judge} --prompts {input.prompts} --purpose replay-{wildcards.phase}"
        " {params.shard} --output {params.folder} > {log} 2>&1"


rule phase_set:
    input:
        sources=rule_sources("curriculum", "phases"),
        prompts=rules.prompts.output.train,
        candidates=phase_candidates_of,
        previous=phase_before("phases.csv", "training_set.csv", "discard_pool.csv", "codes.npy"),
        like=phase_alike("phases.csv"),
    output:
        training_set="<results>/{experiment}/seed={seed}/phase={phase}/training_set.csv",
        codes="<results>/{experiment}/seed={seed}/phase={phase}/codes.npy",
        pool="<results>/{experiment}/seed={seed}/phase={phase}/discard_pool.csv",
        next_prompts="<results>/{experiment}/seed={seed}/phase={phase}/next_prompts.csv",
        counts="<results>/{experiment}/seed={seed}/phase={phase}/phases.csv",
    log:
        "<results>/{experiment}/seed={seed}/phase={phase}/training_set.log",
    wildcard_constraints:
        experiment=r"c_[a-z0-9_]+",
        phase=r"[1-9]\d*",
    localrule: True
    conda:
        "../environment.yaml"
    threads: 1
    params:
        config=stage_config("phases"),
        phase=phase_of,
        files=lambda wildcards, input: " ".join(
            f"--{name} {Path(input[name] if name == 'like' else input[name][0]).parent}"
            for name in ("candidates", "previous", "like")
            if input[name]
        ),
        folder=subpath(output.training_set, parent=True),
    shell:
        "python -m replication.curriculum --config {params.config:q} --seed {wildcards.seed} --phase {params.phase}"
        " --prompts {input.prompts} {params.files} --output {params.folder} > {log} 2>&1"


rule phase_training:
    input:
        sources=model_sources("post_training"),
        model=model_before,
        reference=base_model,
        training_set=rules.phase_set.output.training_set,
        codes=rules.phase_set.output.codes,
        like=phase_alike("model"),
    output:
        model=directory("<results>/{experiment}/seed={seed}/phase={phase}/model"),
    log:
        "<results>/{experiment}/seed={seed}/phase={phase}/post_training.log",
    benchmark:
        "<results>/{experiment}/seed={seed}/phase={phase}/post_training.benchmark.jsonl"
    wildcard_constraints:
        experiment=r"c_[a-z0-9_]+",
        phase=r"[1-9]\d*",
    conda:
        "../environment.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime="1h",
    params:
        config=stage_config("post_training"),
        epochs=phase_epochs_option,
        like=lambda wildcards, input: f"--like {input.like}" if input.like else "",
        candidates=subpath(input.codes, parent=True),
    shell:
        "python -m replication.post_training --config {params.config:q} --seed {wildcards.seed}"
        " --model {input.model} --reference {input.reference} {params.epochs} --candidates {params.candidates}"
        " --training-set {input.training_set} {params.like} --output {output.model} > {log} 2>&1"


use rule phase_set as last_phase_set with:
    output:
        training_set="<results>/{experiment}/seed={seed}/training_set.csv",
        codes="<results>/{experiment}/seed={seed}/codes.npy",
        pool="<results>/{experiment}/seed={seed}/discard_pool.csv",
        next_prompts="<results>/{experiment}/seed={seed}/next_prompts.csv",
        counts="<results>/{experiment}/seed={seed}/phases.csv",
    log:
        "<results>/{experiment}/seed={seed}/training_set.log",
    localrule: True


use rule phase_training as last_phase_training with:
    input:
        sources=model_sources("post_training"),
        model=model_before,
        reference=base_model,
        training_set=rules.last_phase_set.output.training_set,
        codes=rules.last_phase_set.output.codes,
        like=phase_alike("model"),
    output:
        model=directory("<results>/{experiment}/seed={seed}/model"),
    log:
        "<results>/{experiment}/seed={seed}/post_training.log",
    benchmark:
        "<results>/{experiment}/seed={seed}/post_training.benchmark.jsonl"


rule curriculum:
    input:
        collect(
            "<results>/{experiment}/seed={seed}/evaluation/metrics.csv",
            experiment=PAPER["curriculum"],
            seed=PAPER["seeds"],
        ),
        "<figures>/curriculum.pdf",
        "<figures>/tab_curriculum.tex",
    localrule: True
