rule candidates:
    input:
        sources=model_sources("candidates"),
        model=base_model,
        prompts=rules.prompts.output.train,
    output:
        table="<results>/candidates{shard}/seed={seed}/candidates.csv",
        codes="<results>/candidates{shard}/seed={seed}/codes.npy",
    log:
        "<results>/logs/candidates{shard}/seed={seed}.log",
    benchmark:
        "<results>/logs/candidates{shard}/seed={seed}.benchmark.jsonl"
    conda:
        "../environment.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime="30m",
    params:
        config=stage_config("candidates"),
        purpose=candidates_stream,
        shard=shard_option,
        folder=subpath(output.table, parent=True),
    shell:
        "python -m replication.candidates --config {params.config:q} --seed {wildcards.seed}"
        " --model {input.model} --prompts {input.prompts} --purpose {params.purpose}"
        " {params.shard} --output {params.folder} > {log} 2>&1"


use rule candidates as own_candidates with:
    input:
        sources=model_sources("candidates"),
        model=starting_model,
        prompts=rules.prompts.output.train,
    output:
        table="<results>/{experiment}/seed={seed}{shard}/candidates/candidates.csv",
        codes="<results>/{experiment}/seed={seed}{shard}/candidates/codes.npy",
    log:
        "<results>/{experiment}/seed={seed}{shard}/candidates.log",
    benchmark:
        "<results>/{experiment}/seed={seed}{shard}/candidates.benchmark.jsonl"


rule merge_candidates:
    input:
        sources=source_files("replication.candidate_shards"),
        tables=collect(
            "<results>/{{place}}/shard={shard}-of-{shards}/{{folder}}/candidates.csv",
            shard=range(SHARDS),
            shards=SHARDS,
        ),
        codes=collect(
            "<results>/{{place}}/shard={shard}-of-{shards}/{{folder}}/codes.npy", shard=range(SHARDS), shards=SHARDS
        ),
    output:
        table="<results>/{place}/{folder}/candidates.csv",
        codes="<results>/{place}/{folder}/codes.npy",
    log:
        "<results>/{place}/{folder}.merge_candidates.log",
    wildcard_constraints:
        place="(?!.*(?:family|shard)=).+" if SHARDS > 1 else "(?!)",  # one shard is drawn where it belongs, so nothing matches
        folder=r"seed=\d+|candidates",
    localrule: True
    conda:
        "../environment.yaml"
    threads: 1
    params:
        shards=lambda wildcards, input: [Path(table).parent for table in input.tables],
        folder=subpath(output.table, parent=True),
    shell:
        "python -m replication.candidate_shards --shards {params.shards} --output {params.folder} > {log} 2>&1"
