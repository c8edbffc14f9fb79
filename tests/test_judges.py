"""Judges from the model hub, on random checkpoints of their real architectures; rules and cache against hand-worked values."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from PIL import Image
from small_judges import blip, clip, owlv2, qwen

from replication.config import CONFIGS
from replication.judges import cache, oracle
from replication.judges.blip_vqa import BlipVQA
from replication.judges.clip_score import ClipScore
from replication.judges.detector import (
    COLOURS,
    Detector,
    Found,
    geneval_holds,
    overlap,
    position_score,
    relations_between,
    spatial_score,
    strongest,
)
from replication.judges.interface import Judge
from replication.judges.panel import check_judges, judge_images, judges_of
from replication.judges.phrases import noun_phrases, parts_of_complex, relation_of
from replication.judges.qwen2_5_vl import Qwen25VL
from replication.models.checkpoint_checks import weight_bytes

PLACES = {"device": "cpu", "dtype": "float32"}


def settings():
    """configs/judge as the paper's judge composes it, on the CPU."""
    parts = [OmegaConf.load(CONFIGS / "judge" / f"{name}.yaml") for name in ("benchmark_scores", "qwen2_5_vl_7b")]
    judge = OmegaConf.create({"judge": OmegaConf.merge(*parts)})
    config = OmegaConf.to_container(judge, resolve=True)["judge"]
    del config["defaults"]
    return {key: {**value, **PLACES} if isinstance(value, dict) else value for key, value in config.items()}


CONFIG = settings()
VERDICT = {**CONFIG["verdict"], "answer_tokens": 5}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("hub")
    makers = {"qwen2_5_vl_7b": qwen, "blip_vqa": blip, "clip_score": clip, "clip_colours": clip, "detector": owlv2}
    return {name: make(folder / name) for name, make in makers.items()}


@pytest.fixture(scope="module")
def judges(checkpoints):
    detector = Detector.load(checkpoints["detector"], CONFIG["detector"])
    detector.colours = ClipScore.load(checkpoints["clip_colours"], CONFIG["colours"])
    return {
        "verdict": Qwen25VL.load(checkpoints["qwen2_5_vl_7b"], VERDICT),
        "blip_vqa": BlipVQA.load(checkpoints["blip_vqa"], CONFIG["blip_vqa"]),
        "clip_score": ClipScore.load(checkpoints["clip_score"], CONFIG["clip_score"]),
        "detector": detector,
    }


def some_images(number, size=48):
    return np.random.default_rng(0).integers(256, size=(number, size, size, 3), dtype=np.uint8)


def some_rows(*prompts, metadata=None):
    return pd.DataFrame({"prompt": prompts, "metadata": metadata})


SPATIAL = some_rows("a bench near a bowl", "a big red cup on the left of a dog", "a girl next to a frog")
ATTRIBUTES = some_rows("a green bench and a red bowl", "a red cup", "the green bowl and a cup and a red bench")


@pytest.mark.parametrize(
    ("name", "rows"),
    [("verdict", ATTRIBUTES), ("blip_vqa", ATTRIBUTES), ("clip_score", ATTRIBUTES), ("detector", SPATIAL)],
)
def test_an_answer_does_not_depend_on_the_batch(judges, name, rows):
    images, judge = some_images(3), judges[name]
    together = judge.answers(images, rows)
    alone = [judge.answers(images[i : i + 1], rows.iloc[i : i + 1])[0] for i in (2, 1, 0)][::-1]
    if name == "verdict":
        assert together == alone
    else:
        np.testing.assert_allclose(together, alone, atol=1e-5)
        assert np.std(together) > 0 and all(0 <= abs(score) <= 1.00001 for score in together)
        np.testing.assert_array_equal(judge.scores(images, rows), judge.answers(images, rows))


def test_the_oracle_offers_the_same_call():
    images, prompts = np.zeros((2, 24, 24, 3), np.uint8), ["an image of a triangle", "an image of a square"]
    scores = oracle.scores(images, some_rows(*prompts))
    assert scores.dtype == float and list(scores) == list(oracle.judge(images, prompts))


def test_qwen_is_asked_the_papers_question_once_and_answers_greedily(judges):
    """Token by token through plain forward passes, without padding, cache or `generate`."""
    judge, image = judges["verdict"], some_images(1, 84)
    answer = judge.answers(image, ATTRIBUTES[:1])[0]
    pixels = judge.image_processor(images=[Image.fromarray(image[0])], return_tensors="pt")
    text = judge.question(ATTRIBUTES["prompt"][0], int(pixels["image_grid_thw"].prod()) // 4)
    assert text.count("<|image_pad|>") == 9  # 84 x 84 pixels, 28 x 28 each
    asked = text.partition("<|vision_end|>")[2].partition("<|im_end|>")[0]
    assert asked.startswith(
        "You are a helpful language and vision assistant. You are able to understand the visual content"
    )
    assert (
        "Does this original image describe a green bench and a red bowl? If it describes the scene, score 1;" in asked
    )
    assert asked.endswith("Please answer in the following format: The score is {your score}.")
    ids = judge.tokenizer(text, return_tensors="pt")["input_ids"]
    for _ in range(5):
        with torch.no_grad():
            is_image = (ids == judge.image_id).int()
            logits = judge.model(input_ids=ids, **pixels, mm_token_type_ids=is_image).logits
        ids = torch.cat([ids, logits[:, -1].argmax(dim=-1, keepdim=True)], dim=1)
    assert judge.tokenizer.decode(ids[0, -5:], skip_special_tokens=True) == answer


def test_qwens_answers_are_read_as_the_models_own_are(judges):
    read = judges["verdict"].read(["It shows both. The score is 1.", "The score is 0", "Yes.", "Hm."])
    assert read[:3] == [1.0, 0.0, 1.0] and math.isnan(read[3])


def test_blip_multiplies_what_it_says_of_each_noun_phrase(judges):
    judge, image = judges["blip_vqa"], some_images(1)
    one, other = (judge.answers(image, some_rows(text))[0] for text in ("a green bench", "a red bowl"))
    assert judge.answers(image, some_rows("a green bench and a red bowl"))[0] == pytest.approx(one * other, abs=1e-6)
    assert judge.answers(image, some_rows("near")) == [1.0]  # nothing to ask about

    asked = judge.tokenizer("a green bench?", return_tensors="pt")
    words = judge.model.config.text_config
    asked["input_ids"][0, 0] = words.vocab_size - 1
    pixels = judge.image_processor(images=[Image.fromarray(image[0])], return_tensors="pt")
    first = torch.tensor([[words.bos_token_id]])
    with torch.no_grad():
        seen = judge.model.vision_model(**pixels).last_hidden_state
        states = judge.model.text_encoder(**asked, encoder_hidden_states=seen).last_hidden_state
        logits = judge.model.text_decoder(input_ids=first, encoder_hidden_states=states).logits[0, 0]
    yes, no = (logits[judge.tokenizer.vocab[word]].exp() for word in ("yes", "no"))
    assert one == pytest.approx(float(yes / (yes + no)), abs=1e-5)


def test_clip_score_is_the_cosine_that_clip_itself_gives(judges):
    judge, images = judges["clip_score"], some_images(3)
    pixels = judge.image_processor(images=list(images), return_tensors="pt")
    tokens = judge.tokenizer(ATTRIBUTES["prompt"].tolist(), padding=True, return_tensors="pt")
    with torch.no_grad():
        outputs = judge.model(**pixels, **tokens)
        cosines = outputs.logits_per_image.diagonal() / judge.model.logit_scale.exp()
    np.testing.assert_allclose(judge.answers(images, ATTRIBUTES), cosines, atol=1e-5)
    long = some_rows("a red bowl " * 60)
    assert -1 <= judge.answers(images[:1], long)[0] <= 1  # cut to what CLIP reads


@pytest.mark.parametrize(
    ("prompt", "phrases"),
    [
        ("a green bench and a blue bowl", ["a green bench", "a blue bowl"]),
        ("rubber sole shoes and fluffy clouds", ["rubber sole shoes", "fluffy clouds"]),
        ("The fluffy cat was lying on the soft blanket.", ["the fluffy cat", "the soft blanket"]),
        ("The red hat was on top of the brown coat rack.", ["the red hat", "the brown coat rack"]),
        ("The glass jar and metallic cap release the fragrance.", ["the glass jar", "metallic cap", "the fragrance"]),
        ("a black and white cat and a dog", ["a black and white cat", "a dog"]),
        ("The hot sun shone down on the wooden bed.", ["the hot sun", "the wooden bed"]),
    ],
)
def test_noun_phrases_by_hand(prompt, phrases):
    assert noun_phrases(prompt) == phrases


@given(st.lists(st.sampled_from(["red cup", "wooden bed", "round clock", "glass vase"]), min_size=1, max_size=4))
def test_joined_noun_phrases_come_apart_again(names):
    phrases = [f"a {name}" for name in names]
    assert noun_phrases(" and ".join(phrases)) == phrases


def test_relations_and_what_complex_prompts_are_scored_by():
    assert relation_of("a girl on the top of a frog") == ("on the top of", "girl", "frog")
    assert relation_of("a stop sign next to a car") == ("next to", "stop sign", "car")
    assert relation_of("a cat and a dog") == (None, None, None)
    assert parts_of_complex("The red hat was on top of the brown rack.") == ("attribute", "spatial")
    assert parts_of_complex("The fluffy cat was lying on the soft blanket.") == ("attribute", "action")
    assert parts_of_complex("The purple vase sat next to the white candle.") == ("attribute", "spatial", "action")
    assert judges_of("t2i_compbench", "complex", "The red hat was next to the rack.") == ("blip_vqa", "detector")
    assert judges_of("geneval", "colors", "a photo of a red apple") == ("detector",)
    with pytest.raises(SystemExit, match="No score is known for the subtask numeracy"):
        judges_of("t2i_compbench", "numeracy", "three cats")


LEFT, RIGHT, OVER = (0, 0, 10, 10), (30, 0, 40, 10), (5, 0, 15, 10)


def test_position_scores_by_hand():
    """Centres (5, 5), (35, 5) and (10, 5); LEFT and OVER share 50 of 150 pixels."""
    assert overlap(LEFT, OVER) == pytest.approx(1 / 3) and overlap(LEFT, RIGHT) == 0
    assert position_score("on the left of", LEFT, RIGHT, 150, 0.1) == 1
    assert position_score("on the right of", LEFT, RIGHT, 150, 0.1) == 0
    assert position_score("on the top of", LEFT, RIGHT, 150, 0.1) == 0
    assert position_score("on the top of", (0, 0, 4, 4), (0, 20, 4, 24), 150, 0.1) == 1
    assert position_score("on top of", (0, 0, 4, 4), (0, 20, 4, 24), 150, 0.1) == 0  # as in the benchmark
    assert position_score("on the left of", LEFT, OVER, 150, 0.1) == pytest.approx(0.3)
    assert position_score("near", LEFT, (300, 200, 310, 210), 150, 0.1) == pytest.approx(0.5)
    assert position_score("near", LEFT, (300, 100, 310, 110), 150, 0.1) == 1  # near in one direction is enough


def test_spatial_scores_by_hand():
    one, other = Found(LEFT, 0.8), Found(RIGHT, 0.6)
    assert spatial_score("on the left of", one, other, 150, 0.1) == pytest.approx(0.2 + 0.15 + 0.5)
    assert spatial_score("on the right of", one, other, 150, 0.1) == 0  # 0.35 is below one half
    assert spatial_score("on the left of", one, None, 150, 0.1) == 0
    assert spatial_score("on the left of", None, None, 150, 0.1) == 0


def test_only_the_best_of_overlapping_detections_is_kept():
    found = [Found(OVER, 0.5), Found(LEFT, 0.9), Found(RIGHT, 0.3), Found((0, 1, 10, 10), 0.8)]
    assert strongest(found, 0.5, 16) == [found[1], found[0], found[2]]
    assert strongest(found, 0.2, 16) == [found[1], found[2]]
    assert strongest(found, 1.0, 2) == [found[1], found[3]]


def test_relative_positions_by_hand():
    assert relations_between(RIGHT, LEFT, 0.1) == {"right of"} and relations_between(LEFT, RIGHT, 0.1) == {"left of"}
    assert relations_between((0, 50, 10, 60), LEFT, 0.1) == {"below"}
    assert relations_between((30, 30, 40, 40), LEFT, 0.1) == {"right of", "below"}
    assert relations_between((1, 1, 11, 11), LEFT, 0.1) == set()  # an offset of 1 within 0.1 x 20
    assert relations_between((20, 0, 30, 10), LEFT, 0.4) == {"right of"}  # 12 of 20 beyond the margin
    assert relations_between((20, 0, 30, 10), LEFT, 0.6) == set()  # 8 of 20


def colours_are(**colours):
    return lambda name, objects: colours[name][: len(objects)]


def boxes(number):
    return [Found((20 * i, 0, 20 * i + 10, 10), 0.9 - i / 100) for i in range(number)]


@pytest.mark.parametrize(
    ("metadata", "found", "colours", "right"),
    [
        ({"include": [{"class": "bench", "count": 1}]}, {"bench": 2}, {}, True),
        ({"include": [{"class": "bench", "count": 1}]}, {"cow": 1}, {}, False),
        ({"include": [{"class": "bench", "count": 1}, {"class": "cow", "count": 1}]}, {"bench": 1}, {}, False),
        (
            {"include": [{"class": "clock", "count": 2}], "exclude": [{"class": "clock", "count": 3}]},
            {"clock": 2},
            {},
            True,
        ),
        (
            {"include": [{"class": "clock", "count": 2}], "exclude": [{"class": "clock", "count": 3}]},
            {"clock": 3},
            {},
            False,
        ),
        (
            {"include": [{"class": "clock", "count": 2}], "exclude": [{"class": "clock", "count": 3}]},
            {"clock": 1},
            {},
            False,
        ),
        ({"include": [{"class": "cup", "count": 1, "color": "red"}]}, {"cup": 2}, {"cup": ["red", "blue"]}, True),
        ({"include": [{"class": "cup", "count": 1, "color": "blue"}]}, {"cup": 2}, {"cup": ["red", "blue"]}, False),
        (
            {"include": [{"class": "cup", "count": 1, "color": "red"}, {"class": "cow", "count": 1, "color": "black"}]},
            {"cup": 1, "cow": 1},
            {"cup": ["red"], "cow": ["white"]},
            False,
        ),
    ],
)
def test_genevals_rules_by_hand(metadata, found, colours, right):
    found = {name: boxes(number) for name, number in found.items()}
    assert geneval_holds(found, metadata, colours_are(**colours), 0.1) is right


def test_genevals_positions_need_both_objects():
    metadata = {"include": [{"class": "bear", "count": 1}, {"class": "dog", "count": 1, "position": ["right of", 0]}]}
    assert geneval_holds({"bear": [Found(LEFT, 1)], "dog": [Found(RIGHT, 1)]}, metadata, None, 0.1)
    assert not geneval_holds({"bear": [Found(RIGHT, 1)], "dog": [Found(LEFT, 1)]}, metadata, None, 0.1)
    assert not geneval_holds({"dog": [Found(RIGHT, 1)]}, metadata, None, 0.1)


def test_the_detector_reads_metadata_thresholds_and_colours(judges, monkeypatch):
    judge, asked = judges["detector"], []

    def detect(images, names, thresholds):
        asked.extend(zip(names, thresholds, strict=True))
        return [{name: boxes(2) for name in of_image} for of_image in names]

    monkeypatch.setattr(judge, "detect", detect)
    monkeypatch.setattr(judge, "name_colours", lambda image, name, objects: ["red"] * len(objects))
    lines = [
        {"tag": "counting", "include": [{"class": "clock", "count": 2}], "exclude": [{"class": "clock", "count": 3}]},
        {"tag": "colors", "include": [{"class": "cup", "count": 1, "color": "blue"}]},
    ]
    rows = pd.concat([some_rows("", "", metadata=[json.dumps(line) for line in lines]), SPATIAL[2:]])
    scores = judge.scores(some_images(3), rows)
    assert scores[:2] == [1.0, 0.0] and scores[2] == pytest.approx(0.45 + 0.5)
    assert asked == [(["clock", "clock"], 0.3), (["cup"], 0.2), (["person", "frog"], 0.2)]
    with pytest.raises(SystemExit, match="'a cat' names no spatial relation"):
        judge.answers(some_images(1), some_rows("a cat"))


def test_detections_are_the_models_own_boxes_and_scores(judges):
    """Without thinning out: the best score of one query is the largest sigmoid of the model's logits."""
    judge, images = judges["detector"], some_images(2)
    found = judge.detect(images, [["dog"], ["cat", "bench"]], [0.0, 0.0])
    tokens = judge.tokenizer(["a photo of a dog"], padding="max_length", max_length=16, return_tensors="pt")
    pixels = judge.image_processor(images=[Image.fromarray(images[0])], return_tensors="pt")
    with torch.no_grad():
        outputs = judge.model(**tokens, **pixels)
    best = outputs.logits[0, :, 0].sigmoid().argmax()
    x, y, width, height = outputs.pred_boxes[0, best].tolist()
    corners = [48 * value for value in (x - width / 2, y - height / 2, x + width / 2, y + height / 2)]
    np.testing.assert_allclose(found[0]["dog"][0].box, corners, atol=1e-3)
    assert found[0]["dog"][0].score == pytest.approx(float(outputs.logits[0, best, 0].sigmoid()), abs=1e-6)
    assert set(found[1]) == {"cat", "bench"}


def test_colours_are_read_from_boxes_and_reach_past_no_edge(judges):
    judge, image = judges["detector"], some_images(1)[0]
    named = judge.name_colours(image, "cup", [Found(box, 1) for box in ((-9, -9, 20, 20), (50, 50, 60, 60), LEFT)])
    assert len(named) == 3 and set(named) <= set(COLOURS)
    assert judge.name_colours(image[:20, :20], "cup", [Found((0, 0, 20, 20), 1)]) == named[:1]


class Counting(Judge):
    """A judge that says how bright an image is, and counts how often it is asked."""

    def __init__(self, config, dies_after=None):
        super().__init__(config)
        self.asked, self.dies_after = 0, dies_after

    def answers(self, images, rows):
        if self.dies_after is not None and self.asked >= self.dies_after:
            raise KeyboardInterrupt
        self.asked += len(images)
        return (images.mean(axis=(1, 2, 3)) / 255).tolist()


TOGETHER = np.zeros(99, int)  # all in one drawing
PLAIN = {"name": "plain", "class": "replication.judges.interface.Judge", "device": "cpu", "revision": "1"}


def seven():
    return some_images(7), some_rows(*"abcdefg")


def test_a_killed_judge_goes_on_where_it_was(tmp_path):
    images, rows = seven()
    expected, path = Counting(PLAIN).scores(images, rows), tmp_path / "folder" / "plain.jsonl"
    with pytest.raises(KeyboardInterrupt):
        cache.scores_of(Counting(PLAIN, dies_after=4), images, rows, path, 2, TOGETHER)
    whole = path.read_text()
    assert len(whole.splitlines()) == 4
    path.write_text(whole[:-9])  # a line that was cut off by a kill
    again = Counting(PLAIN)
    np.testing.assert_array_equal(cache.scores_of(again, images, rows, path, 2, TOGETHER), expected)
    assert again.asked == 4 and len(path.read_text().splitlines()) == 7
    assert {json.loads(line)["key"] for line in whole.splitlines()[:3]} <= {
        json.loads(line)["key"] for line in path.read_text().splitlines()
    }
    idle = Counting({**PLAIN, "device": "cuda", "batch_size": 9})  # where and how many at once changes no answer
    np.testing.assert_array_equal(cache.scores_of(idle, images, rows, path, 3, TOGETHER), expected)
    assert idle.asked == 0


def test_an_answer_is_kept_for_its_judge_prompt_and_pixels(tmp_path):
    images, rows = seven()
    path = tmp_path / "plain.jsonl"
    twice = np.concatenate([images, images]), pd.concat([rows, rows], ignore_index=True)
    judge = Counting(PLAIN)
    scores = cache.scores_of(judge, *twice, path, 4, TOGETHER)
    assert judge.asked == 7 and (scores[:7] == scores[7:]).all()
    other_pixels, other_prompts = images.copy(), rows.assign(prompt=[*"abcdefx"])
    other_pixels[2, 0, 0, 0] ^= 1
    for changed, number in (
        ((Counting(PLAIN), other_pixels, rows), 1),
        ((Counting(PLAIN), images, other_prompts), 1),
        ((Counting(PLAIN), images, rows.assign(metadata="{}")), 7),
        ((Counting({**PLAIN, "revision": "2"}), images, rows), 7),
        ((Counting({**PLAIN, "question": "Is it?"}), images, rows), 7),
    ):
        cache.scores_of(*changed, path, 4, TOGETHER)
        assert changed[0].asked == number
    assert len(cache.scores_of(Counting(PLAIN), images[:0], rows[:0], path, 4, TOGETHER)) == 0


def test_images_of_different_drawings_are_not_judged_in_one_batch(tmp_path):
    images, rows = seven()
    whole, batches = tmp_path / "whole.jsonl", []

    class Noting(Counting):
        def answers(self, images, rows):
            batches.append("".join(rows["prompt"]))
            return super().answers(images, rows)

    drawn_in = np.array([1, 0, 1, 0, 1, 1, 2])
    scores = cache.scores_of(Noting(PLAIN), images, rows, whole, 3, drawn_in)
    assert batches == ["bd", "ace", "f", "g"]
    np.testing.assert_array_equal(scores, Counting(PLAIN).scores(images, rows))
    part = drawn_in == 1
    cache.scores_of(Noting(PLAIN), images[part], rows[part], tmp_path / "part.jsonl", 3, drawn_in[part])
    assert batches[4:] == ["ace", "f"]


def test_a_damaged_line_is_one_sentence(tmp_path):
    path = tmp_path / "plain.jsonl"
    path.write_text('{"key": "a", "answer": 1}\n???\n')
    with pytest.raises(SystemExit, match="Line 2 of .* is damaged; delete the file"):
        cache.read_answers(path)


def test_a_judge_that_answers_nonsense_is_stopped_and_a_few_slips_are_not(judges, tmp_path):
    images, rows = some_images(24, 28), some_rows(*"abcdefghijklmnopqrstuvwx")
    with pytest.raises(SystemExit, match="qwen2_5_vl_7b gave no score in 20 of 20 answers, such as "):
        cache.scores_of(judges["verdict"], images, rows, tmp_path / "a.jsonl", 10, TOGETHER)
    assert len((tmp_path / "a.jsonl").read_text().splitlines()) == 20

    class Mumbling(Qwen25VL):
        def answers(self, images, rows):
            return ["The score is 1." if prompt < "m" else "Hm." for prompt in rows["prompt"]]

    mumbling = Mumbling(judges["verdict"].model, judges["verdict"].tokenizer, None, VERDICT)
    scores = cache.scores_of(mumbling, images, rows, tmp_path / "b.jsonl", 10, TOGETHER)
    assert np.isnan(scores).sum() == 12 and (scores[:12] == 1).all()


def test_folders_that_hold_no_such_judge_are_one_sentence(checkpoints, tmp_path):
    config = CONFIG["clip_score"]
    with pytest.raises(SystemExit, match="There is no judge clip_score in .*; download openai/clip-vit-base-patch32"):
        ClipScore.load(tmp_path, config)
    folder = clip(tmp_path / "clip")
    record = folder / ".cache" / "huggingface" / "download" / "config.json.metadata"
    record.parent.mkdir(parents=True)
    record.write_text(f"{config['revision']}\netag\n0.0\n")
    ClipScore.load(folder, config)
    record.write_text("0123\netag\n0.0\n")
    with pytest.raises(SystemExit, match=f"holds revision 0123 .* pinned to {config['revision']}"):
        ClipScore.load(folder, config)
    record.unlink()
    index = folder / "model.safetensors.index.json"
    whole = (folder / "model.safetensors").rename(folder / "away.safetensors")
    index.write_text("{")
    with pytest.raises(SystemExit, match="is not a readable judge clip_score, delete the folder"):
        ClipScore.load(folder, config)
    index.unlink()
    weights = whole.rename(folder / "model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(SystemExit, match="is not a readable judge clip_score, delete the folder"):
        ClipScore.load(folder, config)
    with pytest.raises(SystemExit, match="is set to the device cuda, but torch sees no GPU"):
        BlipVQA.load(checkpoints["blip_vqa"], {**CONFIG["blip_vqa"], "device": "cuda"})


def test_too_small_gpus_are_said_before_a_judge_is_read(checkpoints, monkeypatch):
    """On GPUs that are said to be there: each with a little more than half of what the judge takes."""
    needed = weight_bytes(checkpoints["qwen2_5_vl_7b"], "bfloat16") + 4e9
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda gpu: (0.6 * needed, needed))
    panel = {**CONFIG, "verdict": {**VERDICT, "dtype": "bfloat16", "device": "cuda"}}
    for gpus, device in ((2, "cuda"), (1, "auto")):
        monkeypatch.setattr(torch.cuda, "device_count", lambda gpus=gpus: gpus)
        panel["verdict"]["device"] = device
        with pytest.raises(
            SystemExit, match="Judge qwen2_5_vl_7b needs about .* are free on 1 GPU.s.; take larger ones"
        ):
            check_judges(panel, checkpoints.values())
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    check_judges(panel, checkpoints.values())  # over both


def test_the_panel_asks_each_judge_about_its_subtasks_and_never_twice(judges, checkpoints, tmp_path, monkeypatch):
    geneval = json.dumps({"tag": "colors", "include": [{"class": "cup", "count": 1, "color": "red"}]})
    rows = pd.DataFrame(
        [
            ("t2i_compbench", "color", "a green bench and a red bowl", "{}"),
            ("t2i_compbench", "spatial", "a cup next to a bowl", "{}"),
            ("t2i_compbench", "non_spatial", "a girl is looking at a cup", "{}"),
            ("t2i_compbench", "complex", "The red cup was next to the green bowl.", "{}"),
            ("geneval", "colors", "a photo of a red cup", geneval),
        ],
        columns=["benchmark", "subtask", "prompt", "metadata"],
    )
    images, config = some_images(5), {**CONFIG, "verdict": VERDICT}
    judged = judge_images(images, rows, config, checkpoints.values(), tmp_path, TOGETHER[:5])
    counts = {path.stem: len(path.read_text().splitlines()) for path in tmp_path.iterdir()}
    assert counts == {"qwen2_5_vl_7b": 5, "blip_vqa": 2, "detector": 3, "clip_score": 1}
    assert (judged["truth_parsed"] == 0).all() and (judged["truth"] == 0).all()  # five answers are too few to tell
    assert judged["score"].between(-1, 1).all() and "metadata" not in judged
    attribute = judges["blip_vqa"].scores(images, rows)
    assert judged["score"][0] == pytest.approx(attribute[0], abs=1e-6)
    spatial = judges["detector"].scores(images[[1, 3]], rows.iloc[[1, 3]].assign(metadata=None))
    assert judged["score"][3] == pytest.approx((attribute[3] + spatial[1]) / 2, abs=1e-6)

    for judge in (Qwen25VL, BlipVQA, ClipScore, Detector):
        monkeypatch.setattr(judge, "answers", None)
    pd.testing.assert_frame_equal(
        judge_images(images, rows, config, checkpoints.values(), tmp_path, TOGETHER[:5]), judged
    )
