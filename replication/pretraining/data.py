"""Training sequences of the embedded models: text-to-image, captioning and yes/no alignment questions.

Text-to-image pairs are noisy, as pairs from the web are: a stated share of the captions is a near miss. The pairs for
understanding are clean. This, and nothing else, is where the gap between the branches comes from.
"""

from typing import NamedTuple

import numpy as np
import torch
from tqdm import trange

from replication.models.worded import WordedModel
from replication.pretraining.tokenizer import encode, to_pixel_values
from replication.scenes import SUBTASKS
from replication.scenes.grammar import LONGEST_PROMPT, Meaning, holds
from replication.scenes.renderer import IMAGE_SIZE, render
from replication.scenes.scene import Scene
from replication.scenes.world import (
    add_distractors,
    is_held_out,
    near_miss,
    sample_prompt,
    sample_scene,
    sample_split_meaning,
)

IGNORED = -100


def _random_subtask(rng: np.random.Generator) -> str:
    return SUBTASKS[rng.integers(len(SUBTASKS))]


def _training_near_miss(meaning: Meaning, rng: np.random.Generator) -> Meaning:
    while is_held_out(changed := near_miss(meaning, rng)):
        pass
    return changed


def text_to_image_pairs(
    unified: WordedModel, number: int, caption_noise: float, seed: int
) -> tuple[list[str], torch.Tensor]:
    """Captions and image codes (number, 36) of training scenes; a share `caption_noise` of captions is a near miss."""
    rng = np.random.default_rng((seed, 2))
    captions, codes = [], []
    for start in trange(0, number, 500, desc="text-to-image pairs", unit="batch", mininterval=5):
        scenes = []
        for _ in range(min(500, number - start)):
            meaning = sample_split_meaning(_random_subtask(rng), held_out=False, rng=rng)
            scenes.append(sample_scene(meaning, rng))
            told = _training_near_miss(meaning, rng) if rng.random() < caption_noise else meaning
            captions.append(sample_prompt(told, rng))
        codes.append(encode(unified, render(scenes, rng)))
    return captions, torch.cat(codes)


class Understanding(NamedTuple):
    """A batch of pictures, each followed by several independent questions that do not see one another.

    pixel_values (B, 3, 24, 24); input_ids, labels, position_ids (B, S); attention (B, 1, S, S) bool, True = may attend;
    image_start: where the image begins in every row.
    """

    pixel_values: torch.Tensor
    input_ids: torch.Tensor
    labels: torch.Tensor
    position_ids: torch.Tensor
    attention: torch.Tensor
    image_start: int


class QuestionWriter:
    """Writes understanding batches: per picture one caption and three yes/no questions, half of them true.

    The first statement is true, the second (most likely) false, the third either. False ones are near misses or other
    statements of the same subtask.
    """

    def __init__(self, unified: WordedModel):
        self.tokenizer, self.question, self.caption = unified.processor.tokenizer, unified.question, unified.caption
        self.seen_at_once = unified.seen_at_once
        ids = self.tokenizer.convert_tokens_to_ids
        blank = np.zeros((1, IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
        self.prefix = self.tokenizer(unified.ask(blank, ""))["input_ids"]
        self.image_start = self.prefix.index(unified.image_token_id)
        # every batch has the longest possible rows, so that the compiled losses see one shape
        asked = len(self.question.split()) - 1 + LONGEST_PROMPT
        self.length = len(self.prefix) + len(self.caption.split()) + LONGEST_PROMPT + 3 * asked
        self.yes, self.no = ids("yes"), ids("no")
        self.eos, self.pad = self.tokenizer.eos_token_id, self.tokenizer.pad_token_id

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer.convert_tokens_to_ids(text.split())

    def _segments(
        self, subtask: str, meaning: Meaning, scene: Scene, near_miss_share: float, rng: np.random.Generator
    ) -> list[tuple[list[int], list[int]]]:
        """One picture's segments as (ids, labels): labels are what each position must predict next."""
        prompt = sample_prompt(meaning, rng)
        lead, told = self._ids(self.caption), self._ids(prompt)
        answer = [*told, self.eos]
        segments = [(lead + told, [IGNORED] * (len(lead) - 1) + answer)]
        third = meaning if rng.random() < 0.5 else self._false_claim(subtask, meaning, near_miss_share, rng)
        for asked in (meaning, self._false_claim(subtask, meaning, near_miss_share, rng), third):
            ids = self._ids(self.question.format(prompt=sample_prompt(asked, rng)))
            verdict = self.yes if holds(asked, scene) else self.no
            segments.append((ids, [IGNORED] * (len(ids) - 1) + [verdict]))
        return segments

    def _false_claim(self, subtask: str, meaning: Meaning, near_miss_share: float, rng: np.random.Generator) -> Meaning:
        if rng.random() < near_miss_share:
            return _training_near_miss(meaning, rng)
        return sample_split_meaning(subtask, held_out=False, rng=rng)

    def batch(self, size: int, near_miss_share: float, rng: np.random.Generator) -> Understanding:
        """A fresh batch of `size` pictures of training scenes, half of them with one or two further objects.

        near_miss_share: how many of the false statements are near misses, 0 to 1.
        """
        scenes, rows = [], []
        for _ in range(size):
            subtask = _random_subtask(rng)
            meaning = sample_split_meaning(subtask, held_out=False, rng=rng)
            scene = sample_scene(meaning, rng)
            if meaning.count is None:
                scene = add_distractors(scene, max(0, int(rng.integers(-1, 3))), rng)
            scenes.append(scene)
            rows.append(self._segments(subtask, meaning, scene, near_miss_share, rng))
        start, length = len(self.prefix), self.length
        input_ids = torch.full((size, length), self.pad)
        labels = torch.full((size, length), IGNORED)
        position_ids = torch.zeros((size, length), dtype=torch.long)
        segment_ids = torch.full((size, length), -1)
        input_ids[:, :start] = torch.tensor(self.prefix)
        position_ids[:, :start] = torch.arange(start)
        segment_ids[:, :start] = 0
        for row, segments in enumerate(rows):
            at = start
            for number, (ids, targets) in enumerate(segments, start=1):
                here = slice(at, at + len(ids))
                input_ids[row, here] = torch.tensor(ids)
                labels[row, here] = torch.tensor(targets)
                position_ids[row, here] = torch.arange(start, start + len(ids))
                segment_ids[row, here] = number
                at += len(ids)
        same = segment_ids[:, :, None] == segment_ids[:, None, :]
        image = (segment_ids == 0)[:, None, :]
        causal = torch.ones(length, length, dtype=torch.bool).tril()
        together = self.seen_at_once(input_ids)
        return Understanding(
            to_pixel_values(render(scenes, rng)),
            input_ids,
            labels,
            position_ids,
            (((same | image) & causal) | (together[:, :, None] & together[:, None, :]))[:, None],
            self.image_start,
        )
