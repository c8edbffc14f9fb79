"""The configuration: every experiment composes under every preset, and mistakes are one sentence."""

import json
import re
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replication import config as configuration
from replication.config import CONFIGS, as_typed, canonical, load_paper, load_stage, read_selection, shipped_bases
from replication.corruption import check
from replication.phases import phase_epochs

PRESETS = sorted(path.stem for path in (CONFIGS / "preset").glob("*.yaml"))
EXPERIMENTS = sorted(path.stem for path in (CONFIGS / "experiment").glob("*.yaml"))
STAGES = (
    "prompts",
    "base_model",
    "candidates",
    "supervision",
    "quality_check",
    "post_training",
    "evaluation",
    "simulation",
)


@pytest.fixture
def edited_configs(tmp_path, monkeypatch):
    """A function that composes from a copy of `configs/` in which one text is replaced by another."""

    def edit(file, old, new):
        copy = tmp_path / "configs"
        if not copy.exists():
            shutil.copytree(CONFIGS, copy)
        text = (copy / file).read_text()
        assert old in text, f"{file} has no {old!r}"
        (copy / file).write_text(text.replace(old, new))
        monkeypatch.setattr(configuration, "CONFIGS", copy)
        forget()

    def forget():
        for remembered in (load_stage, configuration._compose, configuration._chosen, configuration._check_choice):
            remembered.cache_clear()

    yield edit
    forget()


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_stage_of_every_experiment_composes(preset, experiment):
    trained = load_stage("origin", preset, experiment=experiment)["evaluates"] != "baseline"
    for stage in STAGES:
        if trained or stage not in ("supervision", "post_training"):
            values = load_stage(stage, preset, experiment=experiment)
            assert json.loads(canonical(values)) == values
            assert "???" not in canonical(values)
    evaluation = load_stage("evaluation", preset, experiment=experiment)
    assert (evaluation["preset"], evaluation["experiment"]) == (preset, experiment)


@pytest.mark.parametrize("preset", PRESETS)
def test_paper_lists_known_experiments_and_integer_seeds(preset):
    paper = load_paper(preset)
    assert paper["seeds"] and all(type(seed) is int for seed in paper["seeds"])
    assert len(set(paper["seeds"])) == len(paper["seeds"])
    families = paper["families"]
    parts = [paper["figures"], paper["tables"], families["figures"], families["tables"]]
    assert {*families["arms"], *families["dial"]} <= set(EXPERIMENTS)
    for shown in [one for part in parts for one in part.values()]:
        assert set(shown["experiments"]) <= set(EXPERIMENTS)
        assert shown["caption"].strip()


@pytest.mark.parametrize("arm", sorted(set(load_paper("full")["poor_supervision"])))
def test_an_arm_differs_from_its_parent_in_the_corruption_only(arm):
    """What an arm inherits: everything but the corruption, the name and, where all is accepted, the literal rule."""
    at_random = {"sft": "s_rule_random", "dpo": "s_rule_random_dpo"}
    trainer = arm.split("_")[0]
    parent = "sft_accept_all" if arm == "sft_everything" else at_random[trainer] if "random" in arm else trainer
    for stage in STAGES:
        ours, theirs = (load_stage(stage, "tiny", experiment=name) for name in (arm, parent))
        differing = {key for key in ours if ours[key] != theirs[key]}
        allowed = {"corruption", "corruption_strength", "experiment", "method"}
        assert set(ours) == set(theirs) and differing <= (
            allowed if stage in ("quality_check", "evaluation") else {"corruption", "corruption_strength"}
        )
    supervised, checked = (load_stage(stage, "tiny", experiment=arm) for stage in ("supervision", "quality_check"))
    check(supervised["corruption"], supervised["corruption_strength"])
    assert (checked["corruption"], checked["method"]) == (supervised["corruption"], arm)
    assert supervised["corruption"] != "none" and supervised["method"] == arm.split("_")[0]


def test_full_has_every_arm_and_the_sizes_of_tiny():
    full, tiny = load_paper("full"), load_paper("tiny")
    arms = [name for name in EXPERIMENTS if not name.startswith(("loop_", "i_")) and load_corruption(name) != "none"]
    assert sorted(full["poor_supervision"]) == arms and len(full["seeds"]) >= 10
    assert set(tiny["poor_supervision"]) <= set(arms) and full["bases"] == tiny["bases"]
    for stage in ("prompts", "candidates"):
        assert load_stage(stage, "full") == load_stage(stage, "tiny")


def test_full_has_every_intervention_and_an_intervention_changes_one_thing():
    arms = {name for name in EXPERIMENTS if name.startswith("i_") and not name.startswith("i_shared_")}
    assert set(load_paper("full")["figures"]["interventions"]["experiments"]) == arms | {"sft_swapped"}
    for arm in arms:
        plain = "sft_swapped" if arm.endswith("_swapped") else "sft"
        assert load_stage("supervision", "tiny", experiment=arm) == load_stage("supervision", "tiny", experiment=plain)
        ours, theirs = (load_stage("post_training", "tiny", experiment=name) for name in (arm, plain))
        models = load_stage("origin", "tiny", experiment=arm)
        changed = [key for key in ours if ours[key] != theirs[key]]
        if "separate" in arm:
            assert changed == [] and (models["evaluates"], models["verdicts_from"]) == (plain, "baseline")
        else:
            assert changed in (["trained_modules"], ["orthogonal_to"])
            assert models["evaluates"] == models["verdicts_from"] == arm


def test_the_dial_goes_from_none_shared_to_all_but_the_highest_layer_and_trains_nothing():
    for preset in ("tiny", "full"):
        families = load_paper(preset)["families"]
        variants = [
            f"i_{kind}{end}" for end in ("", "_swapped") for kind in ("separate", *(f"shared_{k}" for k in (1, 2, 3)))
        ]
        assert families["dial"] == variants
        assert {name for name in EXPERIMENTS if name.startswith("i_shared_")} <= set(families["dial"])
    for variant in families["dial"]:
        models = load_stage("origin", "tiny", experiment=variant)
        assert models["evaluates"] == ("sft_swapped" if variant.endswith("_swapped") else "sft")
        shared = load_stage("copies", "tiny", experiment=variant)["shared_parameters"]
        layers = [k for k in range(4) if shared and re.match(shared, f"language_model.layers.{k}.mlp.up_proj.weight")]
        number = re.search(r"shared_(\d)", variant)
        assert layers == list(range(int(number[1]) if number else 0))
        if shared:
            assert re.match(shared, "language_model.embed_tokens.weight")
            assert not re.match(shared, "language_model.norm.weight")


def test_full_has_every_arm_of_sensitivity_and_of_the_closed_loop():
    full = load_paper("full")["figures"]
    sensitivity, loop = full["sensitivity"], full["closed_loop"]
    assert sorted(sensitivity["experiments"] + sensitivity["guided"]) == [n for n in EXPERIMENTS if n.startswith("s_")]
    assert {n for n in EXPERIMENTS if n.startswith("loop_")} == set(loop["experiments"]) - {"sft_oracle", "dpo"}
    assert full["sensitivity"]["seeds"] == full["closed_loop"]["seeds"] == load_paper("full")["seeds"]


def load_corruption(experiment):
    trained = load_stage("origin", "tiny", experiment=experiment)["evaluates"] != "baseline"
    return load_stage("supervision", "tiny", experiment=experiment)["corruption"] if trained else "none"


@pytest.mark.parametrize("preset", PRESETS)
def test_arms_of_the_curriculum_are_cut_into_phases_like_their_controls(preset):
    for arm in load_paper(preset)["curriculum"]:
        schedule, phases = (load_stage(stage, preset, experiment=arm) for stage in ("schedule", "phases"))
        cut = phase_epochs(schedule["replay_at"], load_stage("post_training", preset, experiment=arm)["epochs"])
        assert len(cut) > 1 and phases["experiment"] == arm
        assert (phases["adds"] in ("random", "repeat")) == (schedule["like"] is not None)
        if schedule["like"]:
            assert load_stage("schedule", preset, experiment=schedule["like"])["replay_at"] == schedule["replay_at"]


def test_a_method_carries_no_setting_of_the_other():
    sft, dpo = (load_stage("post_training", "tiny", experiment=name) for name in ("sft", "dpo"))
    assert set(dpo) - set(sft) == {"beta", "nll_weight"}
    assert set(sft) - set(dpo) == {"condition_dropout"}
    assert (sft["epochs"], dpo["epochs"]) == (6, 6)  # of the preset
    longer = [
        load_stage("post_training", "tiny", experiment=name, overrides=("epochs.dpo=9",)) for name in ("sft", "dpo")
    ]
    assert [training["epochs"] for training in longer] == [6, 9]


def test_pretraining_settings_only_exist_from_scratch():
    assert set(load_stage("base_model", "tiny", "shipped")) == {"source", "name"}
    assert load_stage("base_model", "tiny", "scratch")["pretraining"]["joint"]["steps"] > 0


def test_families_are_pre_trained_on_the_same_data_with_the_same_budget():
    one = load_stage("base_model", "tiny", "scratch")["pretraining"]
    added = {
        "embedded_janus_codes": set(),
        "embedded_emu3": {"image_area"},
        "embedded_showo": {"image_area", "decoding_steps", "choice_noise", "likelihood_steps"},
    }
    for family, settings in added.items():
        other = load_stage("base_model", "tiny", "scratch", overrides=(f"choices.model={family}",))["pretraining"]
        assert {key for key in one if one[key] != other[key]} == {"untrained", *(["model"] if settings else [])}
        assert {key for key in other["model"] if key not in one["model"]} == settings
        assert one["model"].items() <= other["model"].items()
        assert other["model"].get("image_area", 576) == 576


def test_released_models_are_not_pre_trained():
    for model, owner in (("janus_pro_7b", "deepseek-community"), ("emu3_gen", "BAAI"), ("showo_512", "showlab")):
        stage = load_stage("base_model", "paper", overrides=(f"choices.model={model}",))
        assert stage["source"] == "hub" and stage["repository"].startswith(f"{owner}/")


@given(st.dictionaries(st.text(), st.one_of(st.integers(), st.floats(allow_nan=False), st.text()), max_size=5))
def test_canonical_ignores_the_order_of_keys(values):
    reordered = dict(reversed(values.items()))
    assert canonical(values) == canonical(reordered)
    assert json.loads(canonical(values)) == values


def test_comments_order_and_notation_do_not_change_the_json(edited_configs):
    before = canonical(load_stage("post_training", "tiny", experiment="dpo"))
    edited_configs("post_training/dpo.yaml", "weight_decay: 0.0", "# moved\nweight_decay: 0.0e+0")
    edited_configs("post_training/dpo.yaml", "method: dpo\n", "")
    edited_configs("post_training/dpo.yaml", "epochs:", "method: dpo\nepochs:")
    assert canonical(load_stage("post_training", "tiny", experiment="dpo")) == before


def test_an_override_reaches_only_the_stage_that_has_the_key():
    overrides = ("post_training.beta=0.7",)
    changed = load_stage("post_training", "tiny", experiment="dpo", overrides=overrides)
    assert changed == load_stage("post_training", "tiny", experiment="dpo") | {"beta": 0.7}
    for stage, experiment in [("post_training", "sft"), ("evaluation", "dpo"), ("candidates", "baseline")]:
        before = load_stage(stage, "tiny", experiment=experiment)
        assert load_stage(stage, "tiny", experiment=experiment, overrides=overrides) == before


@pytest.mark.parametrize(
    ("override", "arm", "kept"),
    [
        ("post_training.beta=0.2", "s_beta_1", "post_training.beta=1"),
        ("post_training.epochs=12", "sft_accept_all", "post_training.epochs=1"),
        ("candidates.candidates_per_prompt=4", "c_sft_n_2", "candidates.candidates_per_prompt=2"),
    ],
)
def test_no_override_undoes_what_an_arm_is_there_to_vary(override, arm, kept):
    stage, key = override.partition("=")[0].split(".")
    with pytest.raises(
        SystemExit, match=rf"^{stage}.{key} is what {arm} is there to vary .*, and an override would undo it"
    ):
        load_stage(stage, "full", experiment=arm, overrides=(override,))
    assert load_stage(stage, "full", experiment=arm, overrides=(kept,)) == load_stage(stage, "full", experiment=arm)
    assert (
        load_stage(stage, "full", experiment="dpo", overrides=(override,))[key]
        != load_stage(stage, "full", experiment=arm)[key]
    )


@pytest.mark.parametrize(
    ("stage", "override", "sentence"),
    [
        ("candidates", "candidates.temperature=0", "candidates.temperature: 0 draws nothing"),
        ("evaluation", "evaluation.batch_size=0", "evaluation.batch_size: 0 is not a whole number of 1 or more"),
        (
            "supervision",
            "supervision.images_per_prompt=1.5",
            "supervision.images_per_prompt: 1.5 is not a whole number",
        ),
    ],
)
def test_a_number_that_draws_nothing_is_one_sentence(stage, override, sentence):
    with pytest.raises(SystemExit, match=f"^{sentence}"):
        load_stage(stage, "tiny", experiment="sft", overrides=(override,))


def test_without_a_base_model_there_is_no_run():
    with pytest.raises(SystemExit, match="names no base model"):
        load_paper("tiny", ("bases=[]",))


@pytest.mark.parametrize("family", ["embedded_janus", "embedded_emu3", "embedded_showo"])
def test_a_family_is_not_shown_with_arms_of_modules_that_it_lacks(family):
    shown = {
        name: load_paper("full", (f"choices.model={name}",))["figures"]["sensitivity"]["experiments"]
        for name in (family, "embedded_janus")
    }
    lacking = set() if family == "embedded_janus" else {"s_modules_aligner", "s_modules_vision"}
    assert set(shown["embedded_janus"]) - set(shown[family]) == lacking


def test_an_override_of_the_seeds_reaches_the_paper():
    assert load_paper("tiny", ("seeds=[7,8]",))["seeds"] == [7, 8]


def test_a_selection_is_typed_as_a_shell_reads_it():
    typed = as_typed({"preset": "full", "overrides": ["seeds=[0,1]", "post_training.beta=0.2"]})
    assert typed == """preset=full 'overrides=["seeds=[0,1]", "post_training.beta=0.2"]'"""


def test_the_selection_has_defaults():
    assert read_selection({}) == ("tiny", "shipped", (), None)
    assert read_selection({"preset": "smoke", "base": "scratch"}) == ("smoke", "scratch", (), None)
    assert read_selection({"preset": "paper"}) == ("paper", "hub", (), None)


def test_a_family_is_its_model_and_the_first_of_its_base_models(tmp_path, monkeypatch):
    monkeypatch.setattr(configuration, "SHIPPED", tmp_path)
    for number in (10, 3, 4, 7):
        (tmp_path / "embedded_emu3" / f"base={number}").mkdir(parents=True)
    assert shipped_bases("embedded_emu3", "tiny") == []  # unfinished: nothing says what they should be
    for name in ("embedded_emu3", "embedded_janus"):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "SHA256SUMS").touch()
    assert shipped_bases("embedded_emu3", "tiny") == [3, 4, 7, 10]
    user = "few_seeds=[5]"
    selection = read_selection({"family": "embedded_emu3", "overrides": [user]})
    assert selection == ("tiny", "shipped", ("bases=[3, 4, 7]", user, "choices.model=embedded_emu3"), "embedded_emu3")
    paper = load_paper("tiny", selection[2])
    assert (paper["bases"], paper["few_seeds"], paper["choices"]["model"]) == ([3, 4, 7], [5], "embedded_emu3")
    assert read_selection({"family": "embedded_emu3", "preset": "smoke"})[2][0] == "bases=[3, 4]"
    own_bases = read_selection({"family": "embedded_emu3", "overrides": ["bases=[10]"]})[2]
    assert load_paper("tiny", own_bases)["bases"] == [10]
    scratch = read_selection({"family": "embedded_emu3", "base": "scratch"})
    assert load_paper("tiny", scratch[2])["bases"] == load_paper("tiny")["bases"]


@pytest.mark.parametrize(
    ("preset", "overrides"), [("tiny", ()), ("paper", ()), ("tiny", ("choices.model=embedded_emu3",))]
)
def test_the_family_that_runs_anyway_has_no_folder_of_its_own(preset, overrides):
    own = load_paper(preset, overrides)["choices"]["model"]
    selection = {"preset": preset, "base": "scratch", "overrides": list(overrides)}
    assert read_selection({**selection, "family": own}) == read_selection(selection)


def test_the_papers_scale_has_released_models_to_choose_from():
    seven = load_stage("candidates", "paper")["model"]
    overrides = ("choices.model=janus_pro_1b", "model.revision=abc")
    assert read_selection({"preset": "paper", "overrides": list(overrides)})[2] == overrides
    one = load_stage("candidates", "paper", overrides=overrides)["model"]
    named = {"name": "janus_pro_1b", "repository": "deepseek-community/Janus-Pro-1B", "revision": "abc"}
    assert one == seven | named and seven["repository"] == "deepseek-community/Janus-Pro-7B"
    assert load_stage("base_model", "paper", overrides=overrides) == {"source": "hub", **named, "parts": {}}


def test_the_papers_scale_trains_for_the_papers_epochs_and_replays_at_epoch_10():
    for experiment, epochs, rate in (("c_sft", 20, 1e-5), ("c_dpo", 30, 5e-6)):
        training = load_stage("post_training", "paper", experiment=experiment)
        assert (training["epochs"], training["learning_rate"]) == (epochs, rate)
        replay_at = load_stage("schedule", "paper", experiment=experiment)["replay_at"]
        assert phase_epochs(replay_at, epochs) == [(0, 10), (10, epochs)]


@pytest.mark.parametrize(
    ("selection", "sentence"),
    [
        ({"preset": "huge"}, "There is no preset 'huge'; choose one of: "),
        ({"base": "released"}, "There is no base_model 'released'; choose one of: hub, scratch, shipped."),
        ({"preset": "paper", "overrides": ["choices.model=janus"]}, "There is no model 'janus'; choose one of: "),
        ({"presets": "tiny"}, "--config knows preset, base, family and overrides, but not presets."),
        ({"overrides": "post_training.beta=0.2"}, "must be a list"),
        ({"overrides": ["post_training.beta"]}, "must be a list"),
        ({"overrides": ["post_training.betta=0.2"]}, "'post_training.betta=0.2' has no place"),
    ],
)
def test_a_wrong_selection_is_one_sentence(selection, sentence):
    with pytest.raises(SystemExit) as stopped:
        read_selection(selection)
    assert sentence in str(stopped.value)
    assert "\n" not in str(stopped.value)


def test_a_missing_value_is_named(edited_configs):
    edited_configs("post_training/dpo.yaml", "beta: 0.1", "beta: ???")
    with pytest.raises(SystemExit, match="^The configuration has no value for 'post_training.beta'"):
        load_stage("post_training", "tiny", experiment="dpo")
    assert load_stage("post_training", "tiny", experiment="sft")["method"] == "sft"


@pytest.mark.parametrize("seed", ["one", "1.5", "true", "null"])
def test_a_seed_must_be_an_integer(edited_configs, seed):
    edited_configs("preset/tiny.yaml", "seeds: [0,", f"seeds: [{seed},")
    with pytest.raises(SystemExit, match="is not a whole number"):
        load_paper("tiny")


@pytest.mark.parametrize("key", ["seeds", "bases", "few_seeds"])
@pytest.mark.parametrize("numbers", ["3", "x", "[0,1.5]", "[0,-1]"])
def test_seeds_and_bases_must_be_lists_of_integers(key, numbers):
    with pytest.raises(SystemExit, match=f"^{key}: "):
        load_paper("tiny", (f"{key}={numbers}",))


@pytest.mark.parametrize("key", ["candidate_shards", "evaluation_shards"])
@pytest.mark.parametrize(
    ("number", "sentence"), [("0", "0 is not a whole number of 1"), ("1.5", "is not a whole number")]
)
def test_images_are_drawn_by_one_job_or_more(key, number, sentence):
    with pytest.raises(SystemExit, match=f"^{key}: .*{sentence}"):
        load_paper("tiny", (f"{key}={number}",))


def test_the_seed_of_the_prompts_must_be_an_integer():
    with pytest.raises(SystemExit, match=r"^prompts\.seed: 'x' is not a whole number of 0 or more"):
        load_stage("prompts", "tiny", overrides=("prompts.seed=x",))


@pytest.mark.parametrize("file", ["preset/tiny.yaml", "experiment/dpo.yaml"])
def test_a_comment_above_the_package_header_is_refused(edited_configs, file):
    edited_configs(file, "# @package _global_", "# what this is\n# @package _global_")
    with pytest.raises(SystemExit, match="its first line must be"):
        load_stage("evaluation", "tiny", experiment="dpo")


@pytest.mark.parametrize(("parent", "heir"), [("experiment/dpo.yaml", "dpo_swapped"), ("preset/tiny.yaml", "full")])
def test_a_parent_needs_its_package_header_too(edited_configs, parent, heir):
    edited_configs(parent, "# @package _global_", "# what this is\n# @package _global_")
    with pytest.raises(SystemExit, match=f"^{parent.split('/')[1]}: its first line must be"):
        if heir == "full":
            load_paper("full")
        else:
            load_stage("evaluation", "tiny", experiment=heir)


def test_every_number_says_where_it_comes_from():
    for path in CONFIGS.rglob("*.yaml"):
        for line in path.read_text().splitlines():
            value, _, comment = line.partition("#")
            key, _, value = value.partition(":")
            if key.strip() and value.strip().replace(".", "").replace("e-", "").isdigit():
                assert comment.strip(), f"{path.relative_to(CONFIGS)}: {line.strip()!r} has no source"
