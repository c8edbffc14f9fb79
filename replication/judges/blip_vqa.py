"""BLIP-VQA, the disentangled attribute score of T2I-CompBench (arXiv 2307.06350): the product over the noun phrases of a
prompt of P(yes) to "{noun phrase}?".

Noun phrases come from `replication.judges.phrases`, in place of the benchmark's spaCy.
"""

import numpy as np
import torch
from PIL import Image
from transformers import AutoTokenizer, BlipForQuestionAnswering
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

from replication.judges.hub import HubJudge, load_pretrained
from replication.judges.phrases import noun_phrases

QUESTION_TOKENS = 35  # what BLIP reads of a question, in its own code and in the benchmark's


class BlipVQA(HubJudge):
    """config: that of `load_pretrained`."""

    def __init__(self, model, tokenizer, image_processor, config):
        super().__init__(config)
        self.model, self.tokenizer, self.image_processor = model, tokenizer, image_processor
        self.yes_no = tokenizer.convert_tokens_to_ids(["yes", "no"])

    @classmethod
    def load(cls, path, config):
        return cls(
            *load_pretrained(path, config, BlipForQuestionAnswering, AutoTokenizer, BlipImageProcessorPil), config
        )

    @torch.no_grad()
    def yes_probabilities(self, images, questions):
        """P(yes) / (P(yes) + P(no)) as the first word of the answer to one question per image: (n,) array."""
        model, device = self.model, self.model.device
        pixels = self.image_processor(images=[Image.fromarray(image) for image in images], return_tensors="pt")
        seen = model.vision_model(pixels["pixel_values"].to(device, model.dtype)).last_hidden_state
        tokens = self.tokenizer(
            questions, padding=True, truncation=True, max_length=QUESTION_TOKENS, return_tensors="pt"
        ).to(device)
        words = model.config.text_config
        tokens["input_ids"][:, 0] = words.vocab_size - 1  # [ENC], which BLIP was trained to begin a question with
        read = model.text_encoder(
            input_ids=tokens["input_ids"],
            attention_mask=tokens["attention_mask"],
            encoder_hidden_states=seen,
            encoder_attention_mask=torch.ones(seen.shape[:2], dtype=torch.long, device=device),
        ).last_hidden_state
        # The decoder of transformers 5 sees padding in spite of a mask, so questions of one length go to it together.
        answers = torch.empty(len(questions), device=device)
        lengths = tokens["attention_mask"].sum(dim=1)
        for length in lengths.unique().tolist():
            alike = lengths == length
            start = torch.full((int(alike.sum()), 1), words.bos_token_id, device=device)
            first = model.text_decoder(input_ids=start, encoder_hidden_states=read[alike, :length]).logits[:, 0]
            answers[alike] = first[:, self.yes_no].float().softmax(dim=-1)[:, 0]
        return answers.cpu().numpy()

    def answers(self, images, rows):
        """The product per image; 1 for a prompt without a noun phrase, as in the benchmark."""
        phrases = [noun_phrases(prompt) for prompt in rows["prompt"]]
        scores = np.ones(len(images))
        for turn in range(max(map(len, phrases))):
            asked = [index for index, of_prompt in enumerate(phrases) if turn < len(of_prompt)]
            questions = [f"{phrases[index][turn]}?" for index in asked]
            scores[asked] *= self.yes_probabilities(images[asked], questions)
        return scores.tolist()
