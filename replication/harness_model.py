"""lmms-eval with one model more: any unified model of this package, in the checkpoint folders that it writes and reads.

python -m replication.harness_model OPTIONS OF lmms_eval --model unified --model_args pretrained=FOLDER,config=JSON_FILE

The harness has no Janus of its own (0.7.2), and other harnesses have deepseek-ai's code, which reads another layout. The door is
the one of its guide for new models: a class that is registered before the harness starts.
"""

import json
from pathlib import Path

import numpy as np
from lmms_eval.__main__ import cli_evaluate
from lmms_eval.api.model import lmms
from lmms_eval.models import MODEL_REGISTRY_V2
from lmms_eval.models.registry_v2 import ModelManifest
from tqdm import tqdm

from replication.models.interface import load_model


class AskedByHarness(lmms):
    """pretrained: checkpoint folder. config: JSON file, the `model` of a station's configuration."""

    def __init__(self, pretrained, config, batch_size=1):
        super().__init__()
        self.unified = load_model(pretrained, json.loads(Path(config).read_text()))

    def generate_until(self, requests):
        """The answers, one question at a time, each cut where its task says."""
        answers = []
        for request in tqdm(requests, desc="questions"):
            question, limits, images_of, number, task, split = request.args
            images = [np.asarray(image.convert("RGB")) for image in images_of(self.task_dict[task][split][number])]
            answer = self.unified.answer(images, question, limits["max_new_tokens"])
            for end in limits.get("until") or []:
                answer = answer.split(end)[0]
            answers.append(answer.strip())
        return answers

    def loglikelihood(self, requests):
        raise NotImplementedError("Tasks that rank given answers are not among those of configs/experiment.yaml.")

    def generate_until_multi_round(self, requests):
        raise NotImplementedError("Tasks of several rounds are not among those of configs/experiment.yaml.")


if __name__ == "__main__":
    manifest = ModelManifest(model_id="unified", simple_class_path="replication.harness_model.AskedByHarness")
    MODEL_REGISTRY_V2.register_manifest(manifest)
    cli_evaluate()
