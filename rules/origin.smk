# Which model draws, judges, is trained and is evaluated in an experiment, and whose candidates it uses (`origin` in
# configs/experiment.yaml).
def origin(experiment):
    return load_stage("origin", PRESET, BASE, experiment, OVERRIDES)


def model_of(wildcards, experiment):
    """The model that an experiment ends with, in the run of the wildcards."""
    return base_model(wildcards) if experiment == "baseline" else f"<results>/{experiment}/seed={wildcards.seed}/model"


def starting_model(wildcards):
    """The model that draws and judges the candidates of an experiment and is trained further."""
    return model_of(wildcards, origin(wildcards.experiment)["starts_from"])


def evaluated_model(wildcards):
    return model_of(wildcards, origin(wildcards.experiment)["evaluates"])


def understanding_model(wildcards):
    """The model whose verdicts an evaluation takes; nothing where it is the one that draws the images."""
    models = origin(wildcards.experiment)
    if models["shared_parameters"]:
        return f"<results>/{wildcards.experiment}/seed={wildcards.seed}/understanding_branch"
    own = models["verdicts_from"] == models["evaluates"]
    return [] if own else model_of(wildcards, models["verdicts_from"])


def round_of(experiment):
    """How many trainings lead to the model that an experiment ends with: 0 for the pre-trained one."""
    return 0 if experiment == "baseline" else 1 + round_of(origin(experiment)["starts_from"])


def rule_sources(station, section):
    """Input function: the sources of a station, with those of its supervision rule where that is a module of one's own."""

    def sources(wildcards):
        name = load_stage(section, PRESET, BASE, wildcards.experiment, OVERRIDES)["rule"]
        own = [name] if "." in name else []
        return source_files(f"replication.{station}", *own)

    return sources


def candidates_stream(wildcards):
    """Name of the random stream of candidates: every round of a closed loop draws anew."""
    rounds = round_of(wildcards.get("experiment", "baseline"))
    return "candidates" if rounds < 2 else f"candidates-{rounds}"


def candidates_of(file):
    """Input function: this file of an experiment's candidates, its own or those that the experiments of a run share."""

    def path(wildcards):
        own, shared = (
            load_stage("candidates", PRESET, BASE, name, OVERRIDES) for name in (wildcards.experiment, "baseline")
        )
        if origin(wildcards.experiment)["starts_from"] == "baseline" and own == shared:
            return f"<results>/candidates/seed={wildcards.seed}/{file}"
        return f"<results>/{wildcards.experiment}/seed={wildcards.seed}/candidates/{file}"

    return path


def asked_models(wildcards):
    """The scores of the models in the paper's Table 8: base models, each once, and what SFT made of them."""
    if BASE != "hub":
        raise SystemExit(
            "The target understanding asks in plain English, and the embedded models know 49 words: add --config preset=paper."
        )
    scores = "<results>/{experiment}/seed={seed}/understanding/scores.csv"
    before = collect(scores, experiment="baseline", seed=PAPER["seeds"][: len(PAPER["bases"])])
    return before + collect(scores, experiment="sft", seed=PAPER["seeds"])
