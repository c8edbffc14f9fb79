"""The model's own verdict on an image: read off two logits, or written out and parsed (paper sections 1.2 and 1.3)."""

import re

import numpy as np
import pandas as pd
import torch

ASKED_AT_ONCE = 32  # images; more only spill the processor's caches, and 32 pictures of 576 tokens fill a GPU
ENOUGH_TO_TELL = 200  # written answers, after which a model that mostly says no score is not asked any further
SCORE = re.compile(r"score is:? *\{?([01])(?![.,]?\d)", re.IGNORECASE)
OPENING = re.compile(r"\s*(yes|no)\b", re.IGNORECASE)


def parse_score(answer):
    """1 or 0 as the last "The score is {0,1}" of a written answer says (paper 1.2), else as its opening Yes or No does (Show-o's
    printed answers, paper 1.3), or None when there is neither."""
    if scores := SCORE.findall(answer):
        return int(scores[-1])
    opening = OPENING.match(answer)
    return int(opening[1].lower() == "yes") if opening else None


@torch.no_grad()
def own_verdicts(model, images, prompts, config):
    """The model's verdicts on one batch of images (n, H, W, 3), each with its own prompt.

    config: `verdict`, the way a verdict is had, and what it needs:
        likelier: one forward pass per image; 1[alignment_logit > `threshold`].
        written: the model writes up to `answer_tokens` tokens, and `parse_score` reads them, as in the paper; an answer that
            does not parse accepts nothing, and `metrics.summarise` counts it.

    Returns a frame with alignment_logit (DPO ranks by it either way), verdict, and for written ones answer and parsed.
    Raises SystemExit for another value of `verdict`.
    """
    if config["verdict"] not in ("likelier", "written"):
        raise SystemExit(f"There is no verdict {config['verdict']!r}; choose likelier or written.")
    prompts = list(prompts)
    by_length = np.argsort([len(prompt) for prompt in prompts], kind="stable")  # prompts of one length need no padding
    logits, answers = np.empty(len(prompts)), np.empty(len(prompts), object)
    for start in range(0, len(prompts), ASKED_AT_ONCE):
        rows = by_length[start : start + ASKED_AT_ONCE]
        asked = images[rows], [prompts[row] for row in rows]
        logits[rows] = model.alignment_logits(*asked).double().cpu().numpy()
        if config["verdict"] == "written":
            answers[rows] = model.written_answers(*asked, config["answer_tokens"])
    if config["verdict"] == "likelier":
        return pd.DataFrame({"alignment_logit": logits, "verdict": (logits > config["threshold"]).astype(int)})
    scores = [parse_score(answer) for answer in answers]
    return pd.DataFrame(
        {
            "alignment_logit": logits,
            "verdict": [int(score == 1) for score in scores],
            "answer": answers,
            "parsed": [int(score is not None) for score in scores],
        }
    )


def check_sense(verdicts, nonsense_share):
    """Raises SystemExit where of written `verdicts`, a frame of `own_verdicts`, more than this share say no score: then the model
    was asked wrongly, and every verdict would be a rejection. Verdicts that are not written pass."""
    if "parsed" not in verdicts:
        return
    unread = verdicts.loc[verdicts["parsed"] == 0, "answer"]
    if len(unread) > nonsense_share * len(verdicts):
        raise SystemExit(
            f"The model gave no score in {len(unread)} of {len(verdicts)} written answers, such as {unread.iloc[-1][-80:]!r}; "
            "check its question and candidates.answer_tokens, or set candidates.verdict=likelier, which reads two logits."
        )
