rule claims:
    input:
        sources=[*source_files("replication.claims"), "replication/claim_registry.py"],
        claims="configs/claims.yaml",
        results=collect(
            "<results>/{experiment}/seed={seed}/evaluation/{file}",
            experiment=judged_experiments(),
            seed=PAPER["seeds"],
            file=["metrics.csv", "images.csv", "probe_verdicts.csv"],
        ),
        registered=collect(
            "<results>/{experiment}/seed={seed}/evaluation/claims_registered.json",
            experiment=judged_experiments(),
            seed=PAPER["seeds"],
        ),
        pretrained=collect(
            "<results>/{experiment}/seed={seed}/evaluation/pretrained_verdicts.csv",
            experiment=judged_experiments("win_rate", "false_positive_lead", "fewer_changed_verdicts"),
            seed=PAPER["seeds"],
        ),
        pools=collect(
            "<results>/{experiment}/seed={seed}/discard_pool.csv",
            experiment=judged_experiments("unlocked_lead"),
            seed=PAPER["seeds"],
        ),
        kernels=collect(
            "<results>/{experiment}/seed={seed}/kernel/{file}",
            experiment=judged_kernels(),
            seed=PAPER["seeds"],
            file=["examples.csv", "pairs.csv"],
        ),
        kernels_registered=collect(
            "<results>/{experiment}/seed={seed}/kernel/claims_registered.json",
            experiment=judged_kernels(),
            seed=PAPER["seeds"],
        ),
    output:
        judged="<results>/claims.csv",
        not_judged="<results>/claims_not_judged.csv",
    log:
        "<results>/logs/claims.log",
    localrule: True
    conda:
        "../environment.yaml"
    params:
        only="",
    shell:
        "python -m replication.claims --claims {input.claims} --inputs {input.registered:q} {input.kernels_registered:q}"
        " {params.only} --output {output.judged} > {log} 2>&1"


use rule claims as claims_of_theory with:
    input:
        sources=[*source_files("replication.claims"), "replication/claim_registry.py"],
        claims="configs/claims.yaml",
        results=collect(
            "<results>/{experiment}/seed={seed}/evaluation/{file}",
            experiment=experiments_of_theory("evaluation"),
            seed=PAPER["few_seeds"],
            file=["metrics.csv", "images.csv", "probe_verdicts.csv"],
        ),
        pretrained=collect(
            "<results>/{experiment}/seed={seed}/evaluation/pretrained_verdicts.csv",
            experiment=[name for name in experiments_of_theory("evaluation") if name != "baseline"],
            seed=PAPER["few_seeds"],
        ),
        kernels=collect(
            "<results>/{experiment}/seed={seed}/kernel/{file}",
            experiment=experiments_of_theory("kernel"),
            seed=PAPER["few_seeds"],
            file=["examples.csv", "pairs.csv"],
        ),
        registered=collect(
            "<results>/{experiment}/seed={seed}/evaluation/claims_registered.json",
            experiment=experiments_of_theory("evaluation"),
            seed=PAPER["few_seeds"],
        ),
        kernels_registered=collect(
            "<results>/{experiment}/seed={seed}/kernel/claims_registered.json",
            experiment=experiments_of_theory("kernel"),
            seed=PAPER["few_seeds"],
        ),
    output:
        judged="<results>/dynamics/claims.csv",
        not_judged="<results>/dynamics/claims_not_judged.csv",
    log:
        "<results>/dynamics/claims.log",
    localrule: True
    params:
        only=lambda wildcards: " ".join(["--only", *PAPER["tables"]["claims_dynamics"]["claims"]]),
