"""An open-vocabulary detector (OWLv2) in place of two: UniDet, for T2I-CompBench's 2D spatial score, and Mask2Former of mmdet,
for GenEval's six tasks. The rules are the benchmarks' own, on boxes; colours are named by CLIP, as in GenEval.

What is otherwise than in the benchmarks: OWLv2 is asked for the objects of one prompt, not for a fixed list of classes; its
scores are not theirs, hence thresholds of our own; it gives no masks, so that a colour is read from the whole box; and
overlapping boxes of one object are thinned out, which it needs and the others do not.
"""

import json
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from transformers import AutoTokenizer, Owlv2ForObjectDetection
from transformers.models.owlv2.image_processing_pil_owlv2 import Owlv2ImageProcessorPil

from replication.judges.hub import HubJudge, load_pretrained
from replication.judges.phrases import relation_of

PERSONS = ("girl", "boy", "man", "woman")  # T2I-CompBench looks for a person where it reads these
NEXT_TO = ("next to", "on side of", "near")
# GenEval's (evaluation/evaluate_images.py): the ten colours and the three wordings by which CLIP tells them apart
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
COLOUR_WORDINGS = ("a photo of a {} {}", "a photo of a {}-colored {}", "a photo of a {} object")


class Found(NamedTuple):
    """One detected object: box (x0, y0, x1, y1) in pixels, and score."""

    box: tuple
    score: float


def overlap(a, b):
    """Intersection over union of two boxes."""
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return width * height / (areas - width * height) if width * height else 0.0


def strongest(found, max_overlap, number):
    """Of one object's detections the best `number`, best first, without those that overlap a better one too much."""
    kept = []
    for one in sorted(found, key=lambda one: -one.score):
        if len(kept) < number and all(overlap(one.box, better.box) < max_overlap for better in kept):
            kept.append(one)
    return kept


def centre(box):
    return np.array([box[0] + box[2], box[1] + box[3]]) / 2


def position_score(relation, first, second, near, max_overlap):
    """How well two boxes stand in a relation, in [0, 1] (T2I-CompBench, determine_position).

    near: pixels within which objects are next to one another. A relation that the benchmark does not score, such as "on top
    of" without "the", gives 0 there, and here.
    """
    x, y = centre(second) - centre(first)
    if relation in NEXT_TO:
        return 1.0 if min(abs(x), abs(y)) < near else near / max(abs(x), abs(y))
    right_way = {
        "on the left of": x > 0 and abs(x) > abs(y),
        "on the right of": x < 0 and abs(x) > abs(y),
        "on the top of": y > 0 and abs(y) > abs(x),
        "on the bottom of": y < 0 and abs(y) > abs(x),
    }
    if not right_way.get(relation, False):
        return 0.0
    shared = overlap(first, second)
    return 1.0 if shared < max_overlap else max_overlap / shared


def spatial_score(relation, first, second, near, max_overlap):
    """T2I-CompBench's 2D spatial score of the best detection of each object, None where there is none.

    A quarter of each object's score and half the position's; below one half it is 0.
    """
    score = sum(0.25 * one.score for one in (first, second) if one)
    if first and second:
        score += position_score(relation, first.box, second.box, near, max_overlap) / 2
    return score if score >= 0.5 else 0.0


def relations_between(box, target, margin):
    """Where `box` lies from `target`: a set of "left of", "right of", "above", "below" (GenEval, relative_position).

    Offsets of the centres count beyond `margin` times the sum of both extents, and in the directions that hold more than
    half of them.
    """
    offset = centre(box) - centre(target)
    extents = sum(np.array([abs(b[2] - b[0]), abs(b[3] - b[1])]) for b in (box, target))
    beyond = np.maximum(np.abs(offset) - margin * extents, 0) * np.sign(offset)
    if (np.abs(beyond) < 1e-3).all():
        return set()
    x, y = beyond / np.linalg.norm(offset)
    holds = {"left of": x < -0.5, "right of": x > 0.5, "above": y < -0.5, "below": y > 0.5}
    return {name for name, true in holds.items() if true}


def geneval_holds(found, metadata, colours_of, margin):
    """Whether an image is right by GenEval's rules (evaluation/evaluate_images.py).

    found: {class: detections, best first}. metadata: a line of evaluation_metadata.jsonl. colours_of(class, detections): the
    colour of each. All of `include` must hold, on the best `count` detections of a class; none of `exclude` may.
    """
    matched, right = [], True
    for wanted in metadata["include"]:
        objects = found.get(wanted["class"], [])[: wanted["count"]]
        holds = len(objects) == wanted["count"]
        if holds and "color" in wanted:
            holds = colours_of(wanted["class"], objects).count(wanted["color"]) == wanted["count"]
        if holds and "position" in wanted:
            relation, target = wanted["position"]
            targets = matched[target]
            holds = bool(targets) and all(
                relation in relations_between(one.box, other.box, margin) for one in objects for other in targets
            )
        matched.append(objects if holds else [])
        right = right and holds
    unwanted = metadata.get("exclude", [])
    return right and all(len(found.get(one["class"], [])) < one["count"] for one in unwanted)


class Detector(HubJudge):
    """config: threshold, counting_threshold, max_overlap, max_objects (detections), near, spatial_overlap, position_margin
    (rules), query (wording, with {}), and those of `load_pretrained`.

    colours: a `ClipScore` that names colours, or None where no prompt asks for one.
    """

    def __init__(self, model, tokenizer, image_processor, config, colours=None):
        super().__init__(config)
        self.model, self.tokenizer, self.image_processor = model, tokenizer, image_processor
        self.colours = colours

    @classmethod
    def load(cls, path, config):
        return cls(
            *load_pretrained(path, config, Owlv2ForObjectDetection, AutoTokenizer, Owlv2ImageProcessorPil), config
        )

    def identity(self):
        return {**super().identity(), "colours": self.colours and self.colours.identity()}

    @torch.no_grad()
    def detect(self, images, names, thresholds):
        """Detections of the objects `names` (a list per image) above each image's threshold: a list of {name: [Found]}."""
        most = max(map(len, names))
        asked = [
            [*of_image, *[of_image[0]] * (most - len(of_image))] for of_image in names
        ]  # equally many for each image
        length = self.model.config.text_config.max_position_embeddings
        texts = [self.config["query"].format(name) for of_image in asked for name in of_image]
        # always padded to the full length, as the model was trained
        tokens = self.tokenizer(texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
        pixels = self.image_processor(images=[Image.fromarray(image) for image in images], return_tensors="pt")
        device = self.model.device
        outputs = self.model(
            input_ids=tokens["input_ids"].to(device),
            attention_mask=tokens["attention_mask"].to(device),
            pixel_values=pixels["pixel_values"].to(device, self.model.dtype),
        )
        outputs.logits, outputs.pred_boxes = outputs.logits.float(), outputs.pred_boxes.float()
        sizes = [image.shape[:2] for image in images]
        detections = self.image_processor.post_process_object_detection(outputs, threshold=0.0, target_sizes=sizes)
        results = []
        for of_image, wanted, threshold in zip(detections, asked, thresholds, strict=True):
            by_name = {name: [] for name in wanted}
            for box, score, label in zip(
                *(of_image[key].tolist() for key in ("boxes", "scores", "labels")), strict=True
            ):
                if score > threshold:
                    by_name[wanted[label]].append(Found(tuple(box), score))
            limits = self.config["max_overlap"], self.config["max_objects"]
            results.append({name: strongest(objects, *limits) for name, objects in by_name.items()})
        return results

    def name_colours(self, image, name, objects):
        """The colour of each detected object on `image` (H, W, 3), by CLIP on its box."""
        texts = [wording.format(colour, name) for colour in COLOURS for wording in COLOUR_WORDINGS]
        classes = self.colours.embed_texts(texts).unflatten(0, (len(COLOURS), -1)).mean(dim=1)
        classes = torch.nn.functional.normalize(classes, dim=-1)
        crops = []
        for x0, y0, x1, y1 in (one.box for one in objects):
            left, top = (min(max(0, int(low)), size - 1) for low, size in ((x0, image.shape[1]), (y0, image.shape[0])))
            crops.append(image[top : max(top + 1, int(np.ceil(y1))), left : max(left + 1, int(np.ceil(x1)))])
        return [COLOURS[best] for best in (self.colours.embed_images(crops) @ classes.T).argmax(dim=-1).tolist()]

    def plan(self, image, prompt, metadata):
        """Objects to look for, the threshold of detection, and the rule from {name: detections} to the score."""
        config = self.config
        if isinstance(metadata, str):
            wanted = json.loads(metadata)
            names = [part["class"] for part in [*wanted["include"], *wanted.get("exclude", [])]]
            threshold = config["counting_threshold" if wanted["tag"] == "counting" else "threshold"]
            colours_of, margin = partial(self.name_colours, image), config["position_margin"]
            return names, threshold, lambda found: float(geneval_holds(found, wanted, colours_of, margin))
        relation, *objects = relation_of(prompt)
        if relation is None:
            raise SystemExit(f"{prompt!r} names no spatial relation, so no detector can judge it; correct its subtask.")
        names = ["person" if name in PERSONS else name for name in objects]
        near = config["near"] * image.shape[1]

        def rule(found):
            first, second = (next(iter(found[name]), None) for name in names)
            return spatial_score(relation, first, second, near, config["spatial_overlap"])

        return names, config["threshold"], rule

    def answers(self, images, rows):
        """Per image 0 or 1 by GenEval's rules where `rows` has metadata for it, else the 2D spatial score of its prompt."""
        plans = [self.plan(*of_image) for of_image in zip(images, rows["prompt"], rows["metadata"], strict=True)]
        names, thresholds, rules = zip(*plans, strict=True)
        found = self.detect(images, names, thresholds)
        return [rule(objects) for rule, objects in zip(rules, found, strict=True)]
