import numpy as np
import pandas as pd
import torch
from settings import MODEL

from replication.candidates import draw_images
from replication.evaluation import judge_pretrained_images, judge_probe
from replication.models.janus import JanusModel
from replication.scenes import STRATUM_OF, oracle

CONFIG = {"guidance_scale": 1.0, "temperature": 1.0, "verdict": "likelier", "threshold": 0.0, "batch_size": 4}


def logits(model, images, prompts):
    with torch.no_grad():
        return model.alignment_logits(images, list(prompts)).numpy()


def prompts():
    texts = ["an image of a triangle", "a picture of a striped purple triangle", "an image of a square"]
    return pd.DataFrame({"prompt_id": [3, 7, 9], "prompt": texts, "subtask": "single_object", "stratum": "easy"})


def test_candidates_are_judged_images_of_their_own_seeds(model):
    rows, codes = draw_images(model, prompts(), 3, "candidate", "candidates", 0, CONFIG)
    assert list(rows["prompt_id"]) == [3, 3, 3, 7, 7, 7, 9, 9, 9]
    assert list(rows["candidate"]) == [0, 1, 2] * 3
    assert codes.shape == (9, 36) and codes.dtype == np.int16
    assert rows["image_seed"].nunique() == 9
    one, log_prob = model.sample_images([rows["prompt"][5]], [rows["image_seed"][5]], 1.0, 1.0)
    assert (one[0].numpy() == codes[5]).all()
    np.testing.assert_allclose(log_prob[0], rows["log_prob"][5], rtol=1e-5)
    images = model.decode_images(torch.from_numpy(codes).long())
    np.testing.assert_allclose(logits(model, images, rows["prompt"]), rows["alignment_logit"], atol=1e-2)
    assert (rows["verdict"] == (rows["alignment_logit"] > 0)).all()
    assert (rows["truth"] == oracle.judge(images, rows["prompt"].tolist())).all()


def test_batch_size_and_other_prompts_change_no_image(model):
    _, codes = draw_images(model, prompts(), 2, "image", "evaluation", 0, CONFIG)
    _, same = draw_images(model, prompts(), 2, "image", "evaluation", 0, {**CONFIG, "batch_size": 6})
    _, last = draw_images(model, prompts().iloc[2:], 2, "image", "evaluation", 0, CONFIG)
    np.testing.assert_array_equal(codes, same)
    np.testing.assert_array_equal(codes[4:], last)
    _, other = draw_images(model, prompts(), 2, "image", "candidates", 0, CONFIG)
    assert (codes != other).any(axis=1).all()


def test_another_model_may_judge(model, checkpoint):
    judge = JanusModel.load(checkpoint, MODEL)
    with torch.no_grad():
        judge.model.lm_head.weight.mul_(-1)
    rows, codes = draw_images(model, prompts(), 2, "candidate", "replay-2", 0, CONFIG)
    judged, same = draw_images(model, prompts(), 2, "candidate", "replay-2", 0, CONFIG, judge)
    np.testing.assert_array_equal(codes, same)
    images = model.decode_images(torch.from_numpy(codes).long())
    np.testing.assert_allclose(logits(judge, images, rows["prompt"]), judged["alignment_logit"], atol=1e-2)
    assert (judged["alignment_logit"] - rows["alignment_logit"]).abs().max() > 0.01


def test_a_second_judge_is_asked_about_the_same_images_and_changes_nothing_else(model, checkpoint):
    judge = JanusModel.load(checkpoint, MODEL)
    judge.accept_id, judge.reject_id = model.reject_id, model.accept_id  # says the opposite of the model
    rows, codes = draw_images(model, prompts(), 3, "image", "evaluation", 0, CONFIG)
    judged, same = draw_images(model, prompts(), 3, "image", "evaluation", 0, CONFIG, second_judge=judge)
    np.testing.assert_array_equal(codes, same)
    pd.testing.assert_frame_equal(judged.drop(columns="judge_verdict"), rows)
    assert (judged["judge_verdict"] == 1 - rows["verdict"]).all() and 0 < rows["verdict"].sum() < 9

    old = judge_pretrained_images(model, judged, codes, CONFIG)
    assert (old["judge_verdict"] == judged["judge_verdict"]).all() and list(old)[4:] == [
        "truth",
        "judge_verdict",
        "before",
        "after",
    ]
    images = model.decode_images(torch.from_numpy(codes).long())
    probe = rows[["prompt", "subtask"]].assign(label=1)
    scenes = judge_probe(model, probe, images, CONFIG, judge)
    assert (scenes["judge_verdict"] == 1 - scenes["verdict"]).all()
    assert "judge_verdict" not in judge_probe(model, probe, images, CONFIG)


def test_no_prompts_give_no_images_and_the_same_columns(model):
    rows, _ = draw_images(model, prompts(), 2, "candidate", "candidates", 0, CONFIG)
    none, no_codes = draw_images(model, prompts().iloc[:0], 2, "candidate", "candidates", 0, CONFIG)
    assert list(none) == list(rows) and none.empty and len(no_codes) == 0


def test_threshold_decides_the_verdict(model):
    rows, _ = draw_images(model, prompts(), 4, "image", "evaluation", 0, CONFIG)
    middle = float(rows["alignment_logit"].median())
    again, _ = draw_images(model, prompts(), 4, "image", "evaluation", 0, {**CONFIG, "threshold": middle})
    assert again["verdict"].sum() == 6


def test_the_pretrained_model_agrees_with_itself_on_its_images(model):
    rows, codes = draw_images(model, prompts(), 3, "image", "evaluation", 0, CONFIG)
    verdicts = judge_pretrained_images(model, rows, codes, CONFIG)
    assert list(verdicts) == ["prompt_id", "subtask", "stratum", "image", "truth", "before", "after"]
    assert (verdicts["before"] == verdicts["after"]).all()
    harsh = judge_pretrained_images(model, rows, codes, {**CONFIG, "threshold": 1e9})
    assert (harsh["after"] == 0).all() and (harsh["before"] == rows["verdict"]).all()


def test_probe_verdicts_follow_their_own_scenes(model):
    images = np.random.default_rng(0).integers(256, size=(6, 24, 24, 3), dtype=np.uint8)
    texts = ["an image of a triangle", "an image of a square"] * 3
    probe = pd.DataFrame({"probe_id": range(6), "prompt": texts, "subtask": "single_object", "label": [0, 1] * 3})
    probe["stratum"] = probe["subtask"].map(STRATUM_OF)
    judged = judge_probe(model, probe, images, CONFIG)
    expected = [logits(model, images[i : i + 1], [texts[i]])[0] for i in range(6)]
    np.testing.assert_allclose(judged["alignment_logit"], expected, atol=1e-4)
    assert (judged["verdict"] == (judged["alignment_logit"] > 0)).all()
