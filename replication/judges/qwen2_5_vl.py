"""Qwen2.5-VL as the verdict judge: the paper's question, a written answer, a hard 0 or 1 (paper 1.2, 1.3 and 2.4)."""

import torch
from PIL import Image
from transformers import AutoTokenizer, GenerationConfig, Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from replication.judges.hub import HubJudge, load_pretrained
from replication.verdicts import parse_score

IMAGE = "<|image_pad|>"


class Qwen25VL(HubJudge):
    """config: question (with {prompt}), answer_tokens, nonsense_share (see `cache.scores_of`) and those of `load_pretrained`.

    The processor is put together here, from tokenizer, chat template and image processor: the one of transformers wants
    torchvision for videos that are never shown.
    """

    def __init__(self, model, tokenizer, image_processor, config):
        super().__init__(config)
        self.model, self.tokenizer, self.image_processor = model, tokenizer, image_processor
        self.image_id = tokenizer.convert_tokens_to_ids(IMAGE)

    @classmethod
    def load(cls, path, config):
        loaded = load_pretrained(
            path, config, Qwen2_5_VLForConditionalGeneration, AutoTokenizer, Qwen2VLImageProcessorPil
        )
        if not loaded[1].chat_template:
            raise SystemExit(
                f"The tokenizer in {path} has no chat template, so judge {config['name']} cannot be asked."
            )
        return cls(*loaded, config)

    def question(self, prompt, image_tokens):
        """One user turn with an image of so many tokens, in the checkpoint's own chat template."""
        content = [{"type": "image"}, {"type": "text", "text": self.config["question"].format(prompt=prompt)}]
        turn = [{"role": "user", "content": content}]
        text = self.tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
        return text.replace(IMAGE, IMAGE * image_tokens, 1)

    @torch.no_grad()
    def answers(self, images, rows):
        """What it writes about each image (n, H, W, 3), greedily, whatever sampling the checkpoint suggests."""
        pixels = self.image_processor(images=[Image.fromarray(image) for image in images], return_tensors="pt")
        tokens = pixels["image_grid_thw"].prod(dim=1) // self.image_processor.merge_size**2
        texts = [self.question(*pair) for pair in zip(rows["prompt"], tokens.tolist(), strict=True)]
        inputs = self.tokenizer(texts, padding=True, padding_side="left", return_tensors="pt")
        inputs = {**inputs, **pixels, "mm_token_type_ids": (inputs["input_ids"] == self.image_id).int()}
        inputs = {key: value.to(self.model.device) for key, value in inputs.items()}
        suggested = self.model.generation_config
        greedy = GenerationConfig(
            do_sample=False,
            max_new_tokens=self.config["answer_tokens"],
            eos_token_id=suggested.eos_token_id,
            pad_token_id=self.tokenizer.pad_token_id,
        )
        written = self.model.generate(**inputs, generation_config=greedy)
        return self.tokenizer.batch_decode(written[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)

    def read(self, answers):
        """1 or 0 as each answer ends, nan where it does not parse."""
        scores = [parse_score(answer) for answer in answers]
        return [float("nan") if score is None else float(score) for score in scores]
