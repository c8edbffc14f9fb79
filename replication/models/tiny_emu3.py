"""The embedded model of the shared-token family: a small configuration of transformers' own Emu3, with the words, images and
image codes of the embedded Janus and about as many weights."""

import torch
from transformers import (
    Emu3Config,
    Emu3ForConditionalGeneration,
    Emu3ImageProcessor,
    Emu3Processor,
    Emu3TextConfig,
    Emu3VQVAEConfig,
    GenerationConfig,
    PreTrainedTokenizerFast,
)

from replication.models import tiny
from replication.models.emu3 import END_OF_ROW, Emu3Model
from replication.models.tiny import CODEBOOK_SIZE, PATCH_SIZE
from replication.scenes.renderer import IMAGE_SIZE

SPECIAL_TOKENS = {**tiny.SPECIAL_TOKENS, "image_wrapper_token": "<wrapper>", "eof_token": "<eof>"}
ROWS = IMAGE_SIZE // PATCH_SIZE
VOCABULARY = (
    *tiny.VOCABULARY,
    "<wrapper>",
    "<eof>",
    END_OF_ROW,
    f"{ROWS}*{ROWS}",
    *(f"<|visual token {code:06d}|>" for code in range(CODEBOOK_SIZE)),
)


def new_processor() -> Emu3Processor:
    """One token per word, 24 x 24 pictures of 36 image codes."""
    tokenizer = tiny.word_tokenizer(VOCABULARY, SPECIAL_TOKENS)
    return Emu3Processor(
        Emu3ImageProcessor(
            image_mean=[0.5] * 3,
            image_std=[0.5] * 3,
            min_pixels=IMAGE_SIZE**2,
            max_pixels=IMAGE_SIZE**2,
            spatial_factor=PATCH_SIZE,
        ),
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, padding_side="left", **SPECIAL_TOKENS),
    )


def new_model(seed: int) -> Emu3ForConditionalGeneration:
    """The embedded model with random weights: 0.52 M parameters in its language model."""
    config = Emu3Config(
        text_config=Emu3TextConfig(
            vocab_size=len(VOCABULARY),
            num_key_value_heads=tiny.LANGUAGE_MODEL["num_attention_heads"],
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
            attention_dropout=0.0,
            **tiny.LANGUAGE_MODEL,
        ),
        vq_config=Emu3VQVAEConfig(
            codebook_size=CODEBOOK_SIZE,
            embed_dim=8,
            latent_channels=8,
            base_channels=32,
            channel_multiplier=(1, 1, 2),
            num_res_blocks=1,
            attn_resolutions=(),
            hidden_size=64,
            temporal_downsample_factor=1,
        ),
        vocabulary_map={word: index for index, word in enumerate(VOCABULARY)},
    )
    torch.manual_seed(seed)
    model = Emu3ForConditionalGeneration(config)
    model.generation_config = GenerationConfig(
        pad_token_id=config.text_config.pad_token_id,
        bos_token_id=config.text_config.bos_token_id,
        eos_token_id=config.text_config.eos_token_id,
    )
    return model


def new_unified(seed: int, wording: dict) -> Emu3Model:
    """The embedded model with random weights and the wordings of configs/model."""
    return Emu3Model(new_model(seed), new_processor(), **wording)
