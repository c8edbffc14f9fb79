"""What a judge has answered, kept by content: a judge is never asked twice about the same prompt and pixels.

A JSON-lines file beside the evaluation, with one line per answer, written batch by batch: a job that is killed loses one batch,
and goes on from there when it is run again.
"""

import hashlib
import json
import math
import os
from itertools import groupby
from pathlib import Path

import numpy as np
from tqdm import tqdm

ENOUGH_TO_TELL = 20  # answers after which a judge that says nothing useful is not asked any further


def key_of(identity, image, prompt, metadata):
    """Digest of all that an answer depends on: the judge (`Judge.identity`), the prompt and the pixels."""
    about = json.dumps([identity, prompt, metadata if isinstance(metadata, str) else None, image.shape], sort_keys=True)
    return hashlib.sha256(about.encode() + image.tobytes()).hexdigest()


def read_answers(path):
    """{key: answer} of a file, or nothing where there is none. What a kill left of a last line is cut off."""
    if not path.exists():
        return {}
    text = path.read_bytes()
    whole = text.rfind(b"\n") + 1
    if whole < len(text):
        os.truncate(path, whole)
    answers = {}
    for number, line in enumerate(text[:whole].splitlines(), start=1):
        try:
            row = json.loads(line)
            answers[row["key"]] = row["answer"]
        except (ValueError, KeyError, TypeError) as error:
            raise SystemExit(
                f"Line {number} of {path} is damaged; delete the file, and judges are asked again."
            ) from error
    return answers


def check_sense(judge, answers, path):
    """Raises SystemExit when most of the answers have no score: every number made of them would be meaningless."""
    if "nonsense_share" not in judge.config or len(answers) < ENOUGH_TO_TELL:
        return
    unread = [answer for answer, score in zip(answers, judge.read(answers), strict=True) if math.isnan(score)]
    if len(unread) > judge.config["nonsense_share"] * len(answers):
        raise SystemExit(
            f"Judge {judge.config['name']} gave no score in {len(unread)} of {len(answers)} answers, such as "
            f"{unread[-1][-80:]!r}; check its checkpoint, its question and answer_tokens, then delete {path}."
        )


def batches_of(new, batch_size, together):
    """Lists of up to `batch_size` of the indices `new`, all of them with the same number in `together`."""
    for _, alike in groupby(sorted(new, key=together.__getitem__), key=together.__getitem__):
        alike = list(alike)
        yield from (alike[start : start + batch_size] for start in range(0, len(alike), batch_size))


def scores_of(judge, images, rows, path, batch_size, together):
    """`judge.scores(images, rows)` as an array (n,), from the file `path` where it has the answers; new ones are added to it.

    rows: columns prompt and metadata. together: (n,); images with different numbers are not judged in one batch. Raises
    SystemExit for a judge of whose answers more than its `nonsense_share` have no score, as soon as `ENOUGH_TO_TELL` are there,
    and for a damaged file.
    """
    path, identity = Path(path), judge.identity()
    contents = zip(images, rows["prompt"], rows["metadata"], strict=True)
    keys = [key_of(identity, *content) for content in contents]
    known = read_answers(path)
    first = {key: index for index, key in reversed(list(enumerate(keys))) if key not in known}
    new = sorted(first.values())
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        for batch in tqdm(list(batches_of(new, batch_size, together)), desc=f"judged by {judge.config['name']}"):
            answers = judge.answers(images[batch], rows.iloc[batch])
            for index, answer in zip(batch, answers, strict=True):
                known[keys[index]] = answer
                file.write(json.dumps({"key": keys[index], "answer": answer}) + "\n")
            file.flush()
            os.fsync(file.fileno())
            check_sense(judge, [known[key] for key in keys if key in known], path)
    if keys:
        check_sense(judge, [known[key] for key in keys], path)
    return np.array(judge.read([known[key] for key in keys]), float)
