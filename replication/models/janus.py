"""Decoupled family: transformers' `JanusForConditionalGeneration`, the embedded model and Janus-Pro alike.

A vision encoder of its own sees, a codebook with its own embeddings and head draws, and one language model does both.
"""

import torch
from transformers import JanusForConditionalGeneration, JanusProcessor

from replication.models.autoregressive import AutoregressiveModel
from replication.models.image_policy import ImageBackbone, ImagePolicy


class JanusBackbone(ImageBackbone):
    """Codes are read through embeddings and an aligner of their own, and predicted by a head of their own."""

    def __init__(self, janus):
        super().__init__(janus.language_model, janus.generation_embeddings.num_embeddings)
        self.generation_embeddings = janus.generation_embeddings
        self.generation_aligner = janus.generation_aligner
        self.generation_head = janus.generation_head

    @property
    def last_layer(self):
        return self.generation_head.vision_head

    def embed(self, input_ids):
        text = self.language_model.embed_tokens((input_ids - self.num_codes).clamp(min=0))
        codes = self.generation_aligner(self.generation_embeddings(input_ids.clamp(max=self.num_codes - 1)))
        return torch.where((input_ids < self.num_codes)[..., None], codes, text)

    def features(self, hidden_states):
        return self.generation_head.activation_fn(self.generation_head.proj_out(hidden_states))


class JanusModel(AutoregressiveModel):
    """A Janus checkpoint."""

    name, model_class, processor_class = "Janus", JanusForConditionalGeneration, JanusProcessor

    @property
    def language_model(self):
        return self.model.model.language_model

    @property
    def num_codes(self):
        return self.model.config.vq_config.num_embeddings

    @property
    def codes_per_image(self):
        return self.model.config.vision_config.num_image_tokens

    @property
    def codebook(self):
        return self.model.model.vqmodel.quantize.embedding.weight

    def code_table(self):
        return self.model.prepare_embeddings_for_image_generation(
            torch.arange(self.num_codes, device=self.model.device)
        )

    def embed_drawn(self, codes):
        return self.model.prepare_embeddings_for_image_generation(codes[:, :-1])

    def code_logits(self, hidden_states):
        return self.model.model.generation_head(hidden_states)

    def drawing_text(self):
        return self.processor.image_start_token

    def image_text(self, images):
        processor = self.processor
        image = processor.image_token * processor.num_image_tokens
        return f"{processor.image_start_token}{image}{processor.image_end_token}"

    def image_size(self, height, width):
        size = self.processor.image_processor.size
        return size["height"], size["width"]

    def embed_images(self, pixel_values):
        return self.model.model.get_image_features(pixel_values, return_dict=True).pooler_output

    def reading(self, pixel_values, input_ids):
        return {"input_ids": input_ids, "pixel_values": pixel_values}

    def write(self, **arguments):
        return self.model.generate(**arguments, generation_mode="text")

    @torch.no_grad()
    def answer(self, images, question, max_new_tokens):
        text = self.begin + self.turn.format(
            image="\n".join([self.image_text(images)] * len(images)), question=question
        )
        input_ids, attention_mask = self._tokenize([text])
        pixels = torch.cat([self.pixel_values(image[None]) for image in images]) if images else None
        return self.greedy_texts(max_new_tokens, input_ids, attention_mask=attention_mask, pixel_values=pixels)[0]

    def paint(self, codes):
        return self.model.decode_image_tokens(codes)

    def image_latents(self, pixel_values):
        vqmodel = self.model.model.vqmodel
        return vqmodel.quant_conv(vqmodel.encoder(pixel_values))

    def encode_pixels(self, pixel_values):
        return self.model.model.vqmodel.encode(pixel_values).image_tokens.view(len(pixel_values), -1)

    def paint_latents(self, vectors):
        vqmodel = self.model.model.vqmodel
        return vqmodel.decoder(vqmodel.post_quant_conv(vectors))

    def adopt_codebook(self):
        """As in Janus, the generation branch starts from the tokenizer's own codebook."""
        self.model.model.generation_embeddings.weight.data.copy_(self.codebook)

    def image_policy(self, trained_modules):
        return ImagePolicy(self, JanusBackbone(self.model.model), trained_modules)

    @torch.no_grad()
    def image_features(self, images):
        return self.embed_images(self.pixel_values(images)).float().mean(dim=1)
