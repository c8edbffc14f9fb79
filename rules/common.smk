from glob import glob

from replication.config import as_typed, canonical, load_paper, load_stage, read_selection
from replication.sources import source_files

PRESET, BASE, OVERRIDES, FAMILY = read_selection(config)
OWN_FOLDER = [f"family={FAMILY}"] if FAMILY else []  # of a family other than the preset's own
PAPER = load_paper(PRESET, OVERRIDES)
SHARDS = PAPER["candidate_shards"]
EVALUATION_SHARDS = PAPER["evaluation_shards"]
PAPER_VALUES = sorted(glob("replication/paper_values/*.csv"))


pathvars:
    results=str(Path("results", PRESET, *OWN_FOLDER)),
    figures=str(Path("paper_figures" if PRESET == "tiny" else f"results/{PRESET}/figures", *OWN_FOLDER)),


wildcard_constraints:
    base=r"\d+",
    seed=r"\d+",
    experiment=r"[a-z0-9_]+",
    part=r"\d+-of-\d+",
    shard=r"(?:/)shard=\d+-of-\d+" if SHARDS > 1 else "(?:)",  # a folder for each job that draws candidates
    figure="|".join(PAPER["figures"]),
    table="|".join(PAPER["tables"]),


def stage_config(stage):
    """Canonical JSON of one station's configuration: the only setting its jobs depend on."""

    def lookup_stage(wildcards):
        experiment = wildcards.get("experiment", "baseline")
        return canonical(load_stage(stage, PRESET, BASE, experiment, OVERRIDES))

    return lookup_stage


def model_sources(station):
    """Input function: the sources of a station that loads a model, with those of the model's class."""

    def sources(wildcards):
        stage, experiment = station.rpartition(".")[2], wildcards.get("experiment", "baseline")
        model = load_stage(stage, PRESET, BASE, experiment, OVERRIDES)["model"]["class"].rpartition(".")[0]
        return source_files(f"replication.{station}", model)

    return sources


def evaluation_sources(wildcards):
    """The sources of an evaluation, with those of its model's and its judges' classes."""
    judges = source_files(*(block["class"].rpartition(".")[0] for block in judge_blocks(wildcards).values()))
    return sorted({*model_sources("evaluation")(wildcards), *judges})


def pretraining_sources(wildcards):
    """The sources of a pre-training, with those of the model that it begins with."""
    untrained = load_stage("base_model", PRESET, BASE, overrides=OVERRIDES)["pretraining"]["untrained"]
    return source_files("replication.base_model", untrained.rpartition(".")[0])


def shard_option(wildcards):
    """Which part of the candidates, or of an evaluation, a job does; nothing where one job does all."""
    part = wildcards.get("part", wildcards.get("shard", "").partition("=")[2])
    return f"--shard {' '.join(part.split('-of-'))}" if part else ""


def evaluation_parts(experiment, file):
    """This file of all shards of an evaluation."""
    return collect(
        f"<results>/{experiment}/seed={{{{seed}}}}/shard={{part}}-of-{EVALUATION_SHARDS}/evaluation/{file}",
        part=range(EVALUATION_SHARDS),
    )


def base_number(wildcards, ahead=0):
    """Runs take the base models in turn."""
    return PAPER["bases"][(int(wildcards.seed) + ahead) % len(PAPER["bases"])]


def base_model(wildcards):
    return f"<results>/base/base={base_number(wildcards)}"


def independent_judge(wildcards):
    """The base model after the run's own in the preset's list; nothing where the list has one only."""
    return f"<results>/base/base={base_number(wildcards, ahead=1)}" if len(PAPER["bases"]) > 1 else []


def judge_blocks(wildcards):
    """{name: block of configs/judge} of the judges that an experiment's evaluation asks: none where it is the oracle."""
    judge = load_stage("evaluation", PRESET, BASE, wildcards.get("experiment", "baseline"), OVERRIDES)["judge"]
    blocks = [block for block in judge.values() if isinstance(block, dict)]
    return {block["name"]: block for block in blocks}


def judge_models(wildcards):
    """The folders of those from the model hub."""
    return [f"<results>/hub/{name}" for name, block in judge_blocks(wildcards).items() if "repository" in block]


def judge_download(wildcards):
    block = judge_blocks(wildcards)[wildcards.judge]
    return canonical({key: block[key] for key in ("name", "repository", "revision")})


def shown_by_default(kind):
    """The figures or tables of the target paper_figures; with one base model there is no second judge to show."""
    left_out = PAPER["by_target_only"] + (["judges", "tab_judges"] if len(PAPER["bases"]) == 1 else [])
    return {name: shown for name, shown in PAPER[kind].items() if name not in left_out}


def figure_sources(wildcards):
    return source_files(f"replication.figures.{wildcards.figure}")


def table_sources(wildcards):
    return source_files(f"replication.tables.{wildcards.table}")


def figure_results(wildcards):
    return results_behind(PAPER["figures"][wildcards.figure])


def table_results(wildcards):
    return results_behind(PAPER["tables"][wildcards.table])


def files_shown():
    """What figures and tables read of runs, but for what a reference holds in tables of all."""
    shown = [file for of in ("figures", "tables") for one in PAPER[of].values() for file in results_behind(one)]
    tables = ("metrics.csv", "supervision.csv", "quality_check.csv", "phases.csv")
    return sorted({file for file in shown if "seed=" in file and not file.endswith(tables)})


def results_behind(shown, others=()):
    """The result files that a figure or table of configs/paper.yaml reads, over its experiments, runs and base models: of the
    preset's own family, and of `others`."""
    lists = {"experiment": shown["experiments"], "seed": shown.get("seeds", PAPER["seeds"]), "base": PAPER["bases"]}
    lists |= {name: shown.get(name, []) for name in ("guided", "dial")}
    own = [f"<results>/{file}" for file in [*shown["files"], *shown.get("own_files", [])]]
    found = collect(own, family=PAPER["choices"]["model"], **lists)
    for name in others:
        found += collect([f"<results>/family={name}/{file}" for file in shown["files"]], family=name, **lists)
    return found
