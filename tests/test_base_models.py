"""The shipped base models are what their table says: measured again, on other prompts and scenes."""

import numpy as np
import pandas as pd
import pytest
import torch

from replication.base_model import SHIPPED, verify
from replication.config import load_stage
from replication.models.interface import load_model
from replication.pretraining.tokenizer import encode
from replication.prompts import probe_set, prompt_table
from replication.scenes import SUBTASKS
from replication.scenes.oracle import judge, read_scenes
from replication.scenes.renderer import render
from replication.scenes.world import miss_scene, sample_meaning, sample_scene

FOLDERS = sorted(SHIPPED.glob("*/base=*"))


def test_there_are_three_of_the_default_family_and_all_are_small():
    assert len([folder for folder in FOLDERS if folder.parent.name == "embedded_janus"]) >= 3
    assert sum(path.stat().st_size for path in SHIPPED.rglob("*") if path.is_file()) <= 60e6
    for folder in FOLDERS:
        verify(folder, folder.parent / "SHA256SUMS")


@pytest.fixture(scope="module", params=FOLDERS, ids=lambda folder: f"{folder.parent.name}-{folder.name}")
def base(request):
    model = load_stage("candidates", "tiny", overrides=(f"choices.model={request.param.parent.name}",))["model"]
    return load_model(request.param, model), pd.read_csv(request.param / "quality.csv")


def stated(quality, metric):
    return quality[(quality["metric"] == metric) & (quality["subtask"] == "overall")]["value"].item()


def test_the_oracle_survives_the_tokenizer(base):
    """Scenes read back exactly after encoding and decoding, true and false statements alike."""
    unified, quality = base
    rng = np.random.default_rng(11)
    meanings = [sample_meaning(SUBTASKS[i % 9], rng) for i in range(360)]
    scenes = [sample_scene(m, rng) if i % 2 else miss_scene(m, rng) for i, m in enumerate(meanings)]
    restored = unified.decode_images(encode(unified, render(scenes, rng)))
    same = [sorted(a) == sorted(b) for a, b in zip(read_scenes(restored), scenes, strict=True)]
    assert np.mean(same) >= 0.97
    assert stated(quality, "reconstruction") >= 0.97


def test_codes_depend_on_the_scene_and_not_on_the_noise(base):
    unified, _ = base
    rng = np.random.default_rng(12)
    scenes = [sample_scene(sample_meaning(SUBTASKS[i % 9], rng), rng) for i in range(90)]
    once, again = (encode(unified, render(scenes, rng)) for _ in range(2))
    assert (once == again).float().mean() >= 0.99


@torch.no_grad()
def test_understanding_and_generation_are_as_stated(base):
    """Within four standard errors of quality.csv, measured there on 1,080 scenes and 540 prompts."""
    unified, quality = base
    probe, pictures = probe_set(20, seed=77)
    right = (unified.alignment_logits(pictures, probe["prompt"].tolist()).numpy() > 0) == (probe["label"] == 1)
    prompts = prompt_table(25, held_out=True, seed=78)["prompt"].tolist()
    codes, _ = unified.sample_images(prompts, list(range(len(prompts))), guidance_scale=1.0, temperature=1.0)
    images = unified.decode_images(codes)
    accepted = (unified.alignment_logits(images, prompts) > 0).float().mean().item()
    for metric, value, count in (
        ("understanding_balanced_accuracy", right.mean(), len(right)),
        ("generation", judge(images, prompts).mean(), len(prompts)),
        ("own_verdict_yes_share", accepted, len(prompts)),
    ):
        expected = stated(quality, metric)
        error = np.sqrt(expected * (1 - expected) * (1 / count + 1 / 540))
        assert abs(value - expected) < 4 * error, metric
