"""Hydra's `configs/` read for the workflow: one canonical JSON per station, composed once and only when asked for.

What the user got wrong is a SystemExit with one sentence, so that Snakemake stops while planning and shows nothing else.
"""

import json
import shlex
from functools import cache
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf, open_dict
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

CONFIGS = Path(__file__).parents[1] / "configs"
SHIPPED = Path(__file__).parents[1] / "base_models"
GLOBAL_HEADER = "# @package _global_"
LEAST = {"seed": 0, "batch_size": 1, "candidates_per_prompt": 1, "images_per_prompt": 1}  # values of stations


def canonical(values):
    """The one JSON text of `values`: keys sorted, so that order and comments in the YAML files do not matter."""
    return json.dumps(values, sort_keys=True)


def load_paper(preset, overrides=()):
    """Choices of config groups, seeds, base models, arms of each study, families, figures and tables of a preset, as a dict of
    plain values. Arms that the family `lacks` are not shown."""
    config = _compose("paper", overrides, preset=preset)
    keys = (
        "choices",
        "seeds",
        "bases",
        "few_seeds",
        "poor_supervision",
        "curriculum",
        "families",
        "by_target_only",
        "compute",
        "figures",
        "tables",
        "candidate_shards",
        "evaluation_shards",
    )
    paper = {key: _plain(config, key) for key in keys}
    for key in ("seeds", "bases", "few_seeds"):
        if not isinstance(paper[key], list):
            raise SystemExit(f"{key}: {paper[key]!r} is not a list; write {key}=[0,1,2].")
        for number in paper[key]:
            _check_integer(number, key, least=0)
    if not paper["bases"]:
        raise SystemExit("bases: [] names no base model; write bases=[0].")
    for key in ("candidate_shards", "evaluation_shards"):
        _check_integer(paper[key], key, least=1)
    lacks = load_stage("candidates", preset, overrides=overrides)["model"].get("lacks", [])
    for shown in (*paper["figures"].values(), *paper["tables"].values()):
        shown["experiments"] = [name for name in shown["experiments"] if name not in lacks]
    return paper


@cache
def load_stage(stage, preset, base=None, experiment="baseline", overrides=()):
    """The configuration of one station in one experiment, as a dict of plain values; base: source of the base models, by
    default the preset's."""
    config = _compose("experiment", overrides, **_groups(preset, base, overrides), experiment=experiment)
    values = _plain(config, stage)
    for key, least in LEAST.items():
        if key in values:
            _check_integer(values[key], f"{stage}.{key}", least)
    if values.get("temperature", 1) <= 0:
        raise SystemExit(f"{stage}.temperature: {values['temperature']} draws nothing; write a number above 0.")
    return values


def read_selection(selection):
    """Preset, source of the base models, overrides and family, from Snakemake's `config` (what `--config` sets), checked.

    family: None where it is the preset's own. Another one is chosen by the overrides.
    """
    selection = {"preset": "tiny", "base": None, "overrides": [], "family": None, **selection}
    preset, base, overrides, family = (selection.pop(key) for key in ("preset", "base", "overrides", "family"))
    if selection:
        raise SystemExit(f"--config knows preset, base, family and overrides, but not {', '.join(selection)}.")
    _check_choice("preset", preset)
    if not isinstance(overrides, list) or not all("=" in str(override) for override in overrides):
        raise SystemExit(f"overrides={overrides!r} must be a list: --config 'overrides=[\"post_training.beta=0.2\"]'.")
    overrides = tuple(overrides)
    if family is not None:
        _check_choice("model", family)
        family = None if family == _groups(preset, base, overrides)["model"] else family
    if family:
        overrides = _with_family(family, preset, base, overrides)
    groups = _groups(preset, base, overrides)
    for group, choice in groups.items():
        _check_choice(group, choice)
    _check_places(overrides, groups)
    if groups["base_model"] == "shipped" and not shipped_bases(groups["model"], preset, overrides):
        raise SystemExit(
            f"No base model of {groups['model']} comes with the repository; pre-train it with --config base=scratch."
        )
    return preset, groups["base_model"], overrides, family


def as_typed(selection):
    """What `--config` selects, as one types it in a shell."""
    words = [f"{key}={json.dumps(value) if isinstance(value, list) else value}" for key, value in selection.items()]
    return shlex.join(words)


def shipped_bases(family, preset, overrides=()):
    """Numbers of the base models that come with the repository for a file of configs/model, sorted; none where none do."""
    model = load_stage("candidates", preset, overrides=(*overrides, f"choices.model={family}"))["model"]
    folder = SHIPPED / model.get("base_models", family)
    bases = folder.glob("base=*") if (folder / "SHA256SUMS").exists() else ()
    return sorted(int(base.name.removeprefix("base=")) for base in bases)


def _with_family(family, preset, base, overrides):
    """`overrides` with a family in the place of the preset's own: its model and, where base models are shipped, the first of its
    own, as many as the preset has, unless the user names others."""
    source = _groups(preset, base, overrides)["base_model"]
    bases = shipped_bases(family, preset, overrides) if source == "shipped" else []
    own = (f"bases={bases[: len(load_paper(preset)['bases'])]}",) if bases else ()
    return *own, *overrides, f"choices.model={family}"


def _check_places(overrides, groups):
    preset = groups["preset"]
    for override in overrides:
        key = override.split("=")[0]
        experiments = (_compose("experiment", **groups, experiment=name) for name in _names("experiment"))
        if not (_has(_compose("paper", preset=preset), key) or any(_has(config, key) for config in experiments)):
            raise SystemExit(f"The override {override!r} has no place: no experiment has a value called {key!r}.")


def _check_arm(config, changed, overrides):
    """Raises SystemExit where an override, in `changed`, undoes what an arm, an experiment whose file extends another's, is there to
    show."""
    own = OmegaConf.to_container(OmegaConf.load(CONFIGS / "experiment" / f"{config.chosen.experiment}.yaml"))
    if any(parent in _names("experiment") for parent in own.get("defaults", [])):
        for key in (override.split("=")[0] for override in overrides):
            if _sets(own, key) and OmegaConf.select(config, key) != OmegaConf.select(changed, key):
                raise SystemExit(
                    f"{key} is what {config.chosen.experiment} is there to vary ({OmegaConf.select(config, key)}), and an override "
                    "would undo it. Ask for targets without that experiment, or edit the file of configs/ from which the others "
                    "have the value."
                )


def _groups(preset, base=None, overrides=()):
    """What an experiment is composed of: a preset, and the config groups that it or the overrides choose."""
    choices = _plain(_compose("paper", overrides, preset=preset), "choices")
    return {"preset": preset, **choices, **({"base_model": base} if base else {})}


@cache
def _compose(name, overrides=(), **groups):
    config = _chosen(name, **groups)
    applicable = [override for override in overrides if _has(config, override.split("=")[0])]
    if not applicable:
        return config
    changed = OmegaConf.merge(config, OmegaConf.from_dotlist(applicable))
    if name == "experiment":
        _check_arm(config, changed, applicable)
    return changed


@cache
def _chosen(name, **groups):
    """What Hydra composes of configs/`name`.yaml and a file of each group, in a quarter of a second. Overrides go into a copy."""
    for group, choice in groups.items():
        _check_choice(group, choice)
    choices = [f"{group}={choice}" for group, choice in groups.items()]
    try:
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            config = compose(name, choices)
        with open_dict(config):
            config.chosen = groups
        return config
    except HydraException as error:
        raise SystemExit(f"configs/{name}.yaml with {', '.join(choices)} cannot be composed: {error}") from error


def _names(group):
    return sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))


@cache
def _check_choice(group, choice):
    if choice not in _names(group):
        raise SystemExit(f"There is no {group} {choice!r}; choose one of: {', '.join(_names(group))}.")
    path = CONFIGS / group / f"{choice}.yaml"
    if group in ("preset", "experiment") and path.read_text().splitlines()[0] != GLOBAL_HEADER:
        raise SystemExit(
            f"{path.name}: its first line must be {GLOBAL_HEADER!r}, or Hydra puts its values in the wrong place."
        )
    for parent in OmegaConf.load(path).get("defaults", []):
        if isinstance(parent, str) and parent != "_self_":
            _check_choice(group, parent)


def _has(config, key):
    missing = object()
    found = OmegaConf.select(config, key, default=missing, throw_on_missing=False, throw_on_resolution_failure=False)
    return found is not missing


def _sets(values, key):
    """Whether nested dicts have a value at the dotted `key`."""
    first, _, rest = key.partition(".")
    return isinstance(values, dict) and first in values and (not rest or _sets(values[first], rest))


def _plain(config, key):
    try:
        value = config[key]
        if OmegaConf.is_config(value):
            return OmegaConf.to_container(value, resolve=True, throw_on_missing=True)
        return value
    except MissingMandatoryValue as error:
        text = f"The configuration has no value for {error.full_key!r}: it is ??? and must be set."
        raise SystemExit(text) from error
    except OmegaConfBaseException as error:
        text = f"The configuration value {error.full_key!r} cannot be resolved: {str(error).splitlines()[0]}."
        raise SystemExit(text) from error


def _check_integer(value, key, least):
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise SystemExit(f"{key}: {value!r} is not a whole number of {least} or more.")
