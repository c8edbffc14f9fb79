# Judges from the model hub: the folders that the download rule of the hub makes, and what it needs to know of each.
def judge_blocks(wildcards):
    """{name: block of configs/judge} of the hub models that an experiment's evaluation asks; none for the oracle."""
    judge = load_stage("evaluation", PRESET, BASE, wildcards.get("experiment", "baseline"), OVERRIDES)["judge"]
    blocks = [block for block in judge.values() if isinstance(block, dict)]
    return {block["name"]: block for block in blocks}


def judge_models(wildcards):
    """Folders of the judges that an evaluation asks; the download rule makes them."""
    return [f"<results>/hub/{name}" for name in judge_blocks(wildcards)]
