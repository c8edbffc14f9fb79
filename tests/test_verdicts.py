from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch

from replication import candidates
from replication.metrics import summarise
from replication.scenes import STRATUM_OF, SUBTASKS
from replication.verdicts import check_sense, own_verdicts, parse_score

PROMPTS = ["an image of a triangle", "a picture of a striped purple triangle"]


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ("The score is 1.", 1),
        ("The score is 0.", 0),
        ("A red cube on a table. The score is {1}.", 1),
        ("the score is: 0", 0),
        ("If it fits, the score is 1. It does not. The score is 0.", 0),
        ("The score is 10", None),
        ("The score is 0.5", None),
        ("The score is 2.", None),
        ("Yes, it does.", 1),
        (" no", 0),
        ("No. But if it were red, the score is 1.", 1),
        ("Nothing is red.", None),
        ("It is, yes.", None),
        ("", None),
    ],
)
def test_scores_are_parsed_from_the_papers_formats(answer, score):
    assert parse_score(answer) == score


def test_answers_that_do_not_parse_accept_nothing_and_are_counted(model, monkeypatch):
    answers = ["The score is 1.", "Hm."]
    monkeypatch.setattr(type(model), "written_answers", lambda self, images, prompts, tokens: answers[: len(prompts)])
    images = np.zeros((2, 24, 24, 3), np.uint8)
    verdicts = own_verdicts(model, images, PROMPTS, {"verdict": "written", "answer_tokens": 4})
    assert list(verdicts["verdict"]) == [1, 0]
    assert list(verdicts["parsed"]) == [1, 0]
    frame = pd.concat(
        [verdicts.assign(subtask=subtask, stratum=STRATUM_OF[subtask], image=[0, 1], truth=1) for subtask in SUBTASKS]
    )
    probe = frame.assign(label=[0, 1] * len(SUBTASKS))
    identity = {"preset": "p", "experiment": "e", "model": "m", "method": "x", "seed": 0}
    metrics = summarise(frame, probe, None, identity).set_index(["subtask", "metric"])
    assert metrics.loc[("overall", "unparsed"), "value"] == 0.0  # image 0 alone
    assert metrics.loc[("overall", "unparsed_n"), "value"] == 0.5
    assert metrics.loc[("overall", "probe_unparsed"), "value"] == 0.5


def test_a_pretrained_model_that_mostly_says_no_score_stops_the_drawing(model, monkeypatch):
    """Of the first 8 answers here, three of which are one batch; what a trained model says is counted."""
    answers = iter(["Hm."] * 5 + ["The score is 0."] * 100)
    monkeypatch.setattr(
        type(model), "written_answers", lambda self, images, prompts, tokens: [next(answers) for _ in prompts]
    )
    monkeypatch.setattr(candidates, "ENOUGH_TO_TELL", 8)
    prompts = pd.DataFrame({"prompt_id": [0], "prompt": PROMPTS[:1], "subtask": ["shape"], "stratum": ["easy"]})
    config = {"guidance_scale": 1.0, "temperature": 1.0, "batch_size": 3, "verdict": "written", "answer_tokens": 4}
    draw = partial(candidates.draw_images, model, prompts, 12, "candidate", "candidates", 0, config)
    with pytest.raises(SystemExit, match="no score in 5 of 9 written answers, such as 'Hm.'; check its question"):
        draw(nonsense_share=0.5)
    answers = iter(["Hm."] * 5 + ["The score is 0."] * 100)
    assert draw(nonsense_share=0.6)[0]["parsed"].sum() == 7
    answers = iter(["Hm."] * 12)
    assert draw()[0]["parsed"].sum() == 0
    check_sense(pd.DataFrame({"verdict": [0, 0]}), 0.5)  # verdicts that are read off logits pass


def test_an_unknown_way_to_a_verdict_is_one_sentence(model):
    with pytest.raises(SystemExit, match="no verdict 'spoken'; choose likelier or written"):
        own_verdicts(model, np.zeros((1, 24, 24, 3), np.uint8), PROMPTS[:1], {"verdict": "spoken"})


def test_written_answers_are_the_greedy_continuation_of_the_question(model):
    images = np.random.default_rng(0).integers(256, size=(2, 24, 24, 3), dtype=np.uint8)
    answers = model.written_answers(images, PROMPTS, 3)
    processor = model.processor
    for image, prompt, answer in zip(images, PROMPTS, answers, strict=True):
        inputs = processor(text=f"<image> {model.question.format(prompt=prompt)}", images=image, return_tensors="pt")
        ids = inputs["input_ids"]
        assert (ids == processor.tokenizer.bos_token_id).sum() == 1
        for _ in range(3):
            with torch.no_grad():
                logits = model.model(input_ids=ids, pixel_values=inputs["pixel_values"]).logits
            ids = torch.cat([ids, logits[:, -1:].argmax(dim=-1)], dim=1)
        assert answer == processor.tokenizer.decode(ids[0, -3:], skip_special_tokens=True)
