# Judges from the model hub (configs/judge): downloaded once, each at its pinned commit, where Snakemake runs. None for the oracle.
def judge_blocks(wildcards):
    """{name: block of configs/judge} of the hub models that an experiment's evaluation asks."""
    judge = load_stage("evaluation", PRESET, BASE, wildcards.get("experiment", "baseline"), OVERRIDES)["judge"]
    blocks = [block for block in judge.values() if isinstance(block, dict)]
    return {block["name"]: block for block in blocks}


def judge_models(wildcards):
    """Their folders."""
    return [f"<results>/hub/{name}" for name in judge_blocks(wildcards)]


def judge_download(wildcards):
    block = judge_blocks(wildcards)[wildcards.judge]
    return canonical({key: block[key] for key in ("name", "repository", "revision")})


rule hub_judge:
    input:
        sources="replication/hub.py",
    output:
        model=directory("<results>/hub/{judge}"),
    log:
        "<results>/logs/judge={judge}.log",
    wildcard_constraints:
        judge=r"[a-z0-9_]+",
    localrule: True
    conda:
        "../environment.yaml"
    params:
        config=judge_download,
    shell:
        "python -m replication.hub --config {params.config:q} --downloads results/downloads"
        " --output {output.model} > {log} 2>&1"
