"""CLIPScore of T2I-CompBench (non-spatial relations): the cosine of CLIP's embeddings of image and prompt."""

import torch
from PIL import Image
from torch.nn.functional import normalize
from transformers import AutoTokenizer, CLIPModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from replication.judges.hub import HubJudge, load_pretrained


class ClipScore(HubJudge):
    """config: that of `load_pretrained`."""

    def __init__(self, model, tokenizer, image_processor, config):
        super().__init__(config)
        self.model, self.tokenizer, self.image_processor = model, tokenizer, image_processor

    @classmethod
    def load(cls, path, config):
        return cls(*load_pretrained(path, config, CLIPModel, AutoTokenizer, CLIPImageProcessorPil), config)

    @torch.no_grad()
    def embed_images(self, images):
        """Unit vectors (n, d) of a list of arrays (H, W, 3) uint8, of any sizes."""
        pixels = self.image_processor(images=[Image.fromarray(image) for image in images], return_tensors="pt")
        pixels = pixels["pixel_values"].to(self.model.device, self.model.dtype)
        return normalize(self.model.get_image_features(pixels).pooler_output.float(), dim=-1)

    @torch.no_grad()
    def embed_texts(self, texts):
        """Unit vectors (n, d); texts are cut to what CLIP reads (77 tokens in released models)."""
        length = self.model.config.text_config.max_position_embeddings
        tokens = self.tokenizer(texts, padding=True, truncation=True, max_length=length, return_tensors="pt")
        tokens = tokens.to(self.model.device)
        features = self.model.get_text_features(tokens["input_ids"], tokens["attention_mask"]).pooler_output
        return normalize(features.float(), dim=-1)

    def answers(self, images, rows):
        cosines = self.embed_images(list(images)) * self.embed_texts(rows["prompt"].tolist())
        return cosines.sum(dim=-1).tolist()
