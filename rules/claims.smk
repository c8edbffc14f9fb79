# The digests that results carry stand for all that their job wrote: what the claims are counted from lies beside them.
rule claims:
    input:
        sources=CLAIM_SOURCES,
        claims="configs/claims.yaml",
        registered=carrying("evaluation", judged_experiments(), PAPER["seeds"]),
        kernels_registered=carrying("kernel", judged_kernels(), PAPER["seeds"]),
        pools=collect(
            "<results>/{experiment}/seed={seed}/discard_pool.csv",
            experiment=judged_experiments("unlocked_lead"),
            seed=PAPER["seeds"],
        ),
    output:
        judged="<results>/claims.csv",
        not_judged="<results>/claims_not_judged.csv",
        by_judge="<results>/claims_by_judge.csv",
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
        sources=CLAIM_SOURCES,
        claims="configs/claims.yaml",
        registered=carrying("evaluation", experiments_of_theory("evaluation"), PAPER["few_seeds"]),
        kernels_registered=carrying("kernel", experiments_of_theory("kernel"), PAPER["few_seeds"]),
    output:
        judged="<results>/dynamics/claims.csv",
        not_judged="<results>/dynamics/claims_not_judged.csv",
        by_judge="<results>/dynamics/claims_by_judge.csv",
    log:
        "<results>/dynamics/claims.log",
    localrule: True
    params:
        only=lambda wildcards: " ".join(["--only", *PAPER["tables"]["claims_dynamics"]["claims"]]),


use rule claims as claims_of_family with:
    input:
        sources=CLAIM_SOURCES,
        claims="configs/claims.yaml",
        registered=carrying("evaluation", experiments_of_families("evaluation"), PAPER["few_seeds"]),
        kernels_registered=carrying("kernel", experiments_of_families("kernel"), PAPER["few_seeds"]),
    output:
        judged=f"<results>/compared/{PAPER['choices']['model']}/claims.csv",
        not_judged=f"<results>/compared/{PAPER['choices']['model']}/claims_not_judged.csv",
        by_judge=f"<results>/compared/{PAPER['choices']['model']}/claims_by_judge.csv",
    log:
        "<results>/compared/claims.log",
    localrule: True
    params:
        only="",
