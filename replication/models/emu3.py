"""Shared-token family: transformers' `Emu3ForConditionalGeneration`, the embedded model and Emu3 alike.

One vocabulary holds words and image codes, and the language model sees an image as the tokens that it would draw. An image is
written as its rows and columns, then row by row, each row ended by a token that is never drawn, but read: its probability
is 1. So pi(x | y) is over image codes only, renormalised among them: the distribution that images are drawn from. Over the
whole vocabulary, the images that can be drawn would have less than all of the probability.
"""

import torch
from torch.nn.functional import linear, pad
from transformers import Emu3ForConditionalGeneration, Emu3Processor
from transformers.models.emu3.image_processing_emu3 import smart_resize

from replication.models.autoregressive import AutoregressiveModel
from replication.models.image_policy import CodeHead, ImageBackbone, ImagePolicy
from replication.sampling import position_ids as positions

FIRST_CODE, END_OF_ROW = "<|visual token 000000|>", "<|extra_200|>"  # as transformers knows them


class Emu3Backbone(ImageBackbone):
    """Joint ids without ends of rows, which are put between the codes before the language model reads them.

    The features at a row's last code are those of the end of the row, which predicts the next code.
    """

    def __init__(self, unified):
        super().__init__(unified.language_model, unified.num_codes)
        self.generation_head = CodeHead(unified.model.lm_head, unified.code_ids)
        self.rows, self.row_length = unified.rows, unified.row_length
        self.first_code, self.end_of_row = unified.code_ids.start, unified.end_of_row

    @property
    def last_layer(self):
        return self.generation_head

    def embed(self, input_ids):
        is_code = input_ids < self.num_codes
        return self.language_model.embed_tokens(input_ids + torch.where(is_code, self.first_code, -self.num_codes))

    def features(self, hidden_states):
        return hidden_states

    def forward(self, input_ids, attention_mask=None, position_ids=None, use_cache=False):
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        is_code = (input_ids < self.num_codes) & attention_mask.bool()
        codes_before = is_code.cumsum(dim=1) - is_code.long()
        places = torch.arange(input_ids.shape[1], device=input_ids.device) + codes_before // self.row_length
        ends = input_ids.new_full((len(input_ids), input_ids.shape[1] + self.rows), self.num_codes + self.end_of_row)
        mask = torch.ones_like(ends).scatter(1, places, attention_mask.to(ends.dtype))
        output = super().forward(ends.scatter(1, places, input_ids), mask, positions(mask), use_cache)
        places = places + (is_code & ((codes_before + 1) % self.row_length == 0))
        width = output.last_hidden_state.shape[2]
        output.last_hidden_state = output.last_hidden_state.gather(1, places[..., None].expand(-1, -1, width))
        return output


class Emu3Model(AutoregressiveModel):
    """An Emu3 checkpoint.

    image_area: pixels of the square images that are drawn, as Emu3's processor takes it. The dropout that released
    configurations ask for is left out: with it, a policy in training would not be its own reference.
    Raises ValueError when the vocabulary does not number the image codes one after the other.
    """

    name, model_class, processor_class = "Emu3", Emu3ForConditionalGeneration, Emu3Processor
    settings = ("image_area",)

    def __init__(self, model, processor, *wording, image_area, **options):
        self.patch_size = processor.image_processor.spatial_factor
        self.rows = self.columns = round(image_area**0.5 / self.patch_size)
        ids, number = model.config.vocabulary_map, model.config.vq_config.codebook_size
        self.code_ids = slice(ids[FIRST_CODE], ids[FIRST_CODE] + number)
        self.end_of_row = ids[END_OF_ROW]
        if model.model.vocabulary_mapping.img2bpe != dict(enumerate(range(self.code_ids.start, self.code_ids.stop))):
            raise ValueError("The vocabulary of the model does not number its image codes one after the other.")
        super().__init__(model, processor, *wording, **options)
        for layer in self.language_model.layers:
            layer.dropout.p = layer.self_attn.attention_dropout = 0.0

    @property
    def begin(self):
        return self.processor.bos_token

    @property
    def language_model(self):
        return self.model.model.text_model

    @property
    def num_codes(self):
        return self.code_ids.stop - self.code_ids.start

    @property
    def codes_per_image(self):
        return self.rows * self.columns

    @property
    def row_length(self):
        return self.columns

    @property
    def codebook(self):
        return self.model.model.vqmodel.quantize.embedding.weight

    def code_table(self):
        embeddings = self.language_model.embed_tokens.weight
        return torch.cat([embeddings[self.code_ids], embeddings[self.end_of_row, None]])

    def embed_drawn(self, codes):
        return self.language_model.embed_tokens(self.written(codes.unflatten(1, (-1, self.columns)))[:, :-2])

    def code_logits(self, hidden_states):
        return linear(hidden_states, self.model.lm_head.weight[self.code_ids])

    def written(self, codes):
        """Token ids (B, rows * (columns + 1)) of codes (B, rows, columns), each row with its end."""
        return pad(codes + self.code_ids.start, (0, 1), value=self.end_of_row).flatten(1)

    def drawing_text(self):
        processor = self.processor
        return f"{processor.image_start_token}{self.rows}*{self.columns}{processor.fake_token_around_image}"

    def image_text(self, images):
        processor = self.processor
        rows, columns = (size // self.patch_size for size in self.image_size(*images.shape[1:3]))
        return (
            f"{processor.image_start_token}{rows}*{columns}{processor.fake_token_around_image}"
            f"{processor.image_token * (rows * (columns + 1))}{processor.eof_token}{processor.image_end_token}"
        )

    def image_size(self, height, width):
        limits = self.processor.image_processor
        return smart_resize(height, width, self.patch_size, limits.min_pixels, limits.max_pixels)

    def embed_images(self, pixel_values):
        return self.language_model.embed_tokens(self.written(self._look_up(pixel_values)))

    def reading(self, pixel_values, input_ids):
        tokens = self.written(self._look_up(pixel_values))
        return {"input_ids": input_ids.masked_scatter(input_ids == self.processor.image_token_id, tokens)}

    def paint(self, codes):
        pixels = self.model.model.vqmodel.decode(codes.unflatten(1, (self.rows, self.columns)))
        return pixels.permute(0, 2, 3, 1)

    def image_latents(self, pixel_values):
        vqmodel = self.model.model.vqmodel
        frames = pixel_values[:, None].repeat(1, vqmodel.config.temporal_downsample_factor, 1, 1, 1)
        return vqmodel.quant_conv(vqmodel.encoder(frames).transpose(1, 2))[:, :, 0]

    def encode_pixels(self, pixel_values):
        return self._look_up(pixel_values).flatten(1)

    def paint_latents(self, vectors):
        vqmodel, vectors = self.model.model.vqmodel, vectors[:, :, None]
        frames = vqmodel.decoder(vqmodel.post_quant_conv(vectors).transpose(1, 2), vectors.transpose(1, 2))
        return frames[:: vqmodel.config.temporal_downsample_factor]

    def image_policy(self, trained_modules):
        return ImagePolicy(self, Emu3Backbone(self), trained_modules)

    @torch.no_grad()
    def image_features(self, images):
        codes = self.encode_pixels(self.pixel_values(images))
        return self.language_model.embed_tokens(codes + self.code_ids.start).float().mean(dim=1)

    @torch.no_grad()
    def _look_up(self, pixel_values):
        """Codes (B, rows, columns) of normalised pixels."""
        return self.model.model.vqmodel.quantize(self.image_latents(pixel_values)[:, None])[:, 0]
