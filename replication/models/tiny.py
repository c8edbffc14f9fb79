"""The embedded model: a small configuration of transformers' own Janus, with its tokenizer and processor."""

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    GenerationConfig,
    JanusConfig,
    JanusForConditionalGeneration,
    JanusProcessor,
    JanusVisionConfig,
    JanusVQVAEConfig,
    LlamaConfig,
    PreTrainedTokenizerFast,
)
from transformers.models.janus.image_processing_pil_janus import JanusImageProcessorPil

from replication.models.janus import JanusModel
from replication.scenes.grammar import WORDS
from replication.scenes.renderer import IMAGE_SIZE

PATCH_SIZE = 4
NUM_IMAGE_TOKENS = (IMAGE_SIZE // PATCH_SIZE) ** 2
CODEBOOK_SIZE = 320
HIDDEN_SIZE = 96
INITIALIZER_RANGE = HIDDEN_SIZE**-0.5  # keeps activations of order 1; the usual 0.02 suits widths of thousands

SPECIAL_TOKENS = {
    "pad_token": "<pad>",
    "bos_token": "<bos>",
    "eos_token": "<eos>",
    "unk_token": "<unk>",
    "boi_token": "<boi>",
    "eoi_token": "<eoi>",
    "image_token": "<image>",
}
QUESTION_WORDS = ("does", "this", "image", "describe", "?", ":", "yes", "no")
VOCABULARY = tuple(dict.fromkeys((*SPECIAL_TOKENS.values(), *QUESTION_WORDS, *WORDS)))

# What the families have in common; their vocabularies begin alike.
LANGUAGE_MODEL = {
    "hidden_size": HIDDEN_SIZE,
    "intermediate_size": 288,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "initializer_range": INITIALIZER_RANGE,
    "pad_token_id": VOCABULARY.index("<pad>"),
    "bos_token_id": VOCABULARY.index("<bos>"),
    "eos_token_id": VOCABULARY.index("<eos>"),
}


def word_tokenizer(vocabulary, special_tokens) -> Tokenizer:
    """One token per word of `vocabulary`, which is numbered in its order."""
    words = {word: index for index, word in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token=special_tokens["unk_token"]))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


def new_processor() -> JanusProcessor:
    """The embedded model's processor: one token per word, 24 x 24 pictures, 36 image tokens."""
    tokenizer = word_tokenizer(VOCABULARY, SPECIAL_TOKENS)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", tokenizer.token_to_id("<bos>"))]
    )
    return JanusProcessor(
        JanusImageProcessorPil(
            size={"height": IMAGE_SIZE, "width": IMAGE_SIZE}, image_mean=[0.5] * 3, image_std=[0.5] * 3
        ),
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, padding_side="left", **SPECIAL_TOKENS),
        num_image_tokens=NUM_IMAGE_TOKENS,
    )


def new_model(seed: int) -> JanusForConditionalGeneration:
    """The embedded model with random weights: 0.48 M parameters in its language model."""
    config = JanusConfig(
        text_config=LlamaConfig(vocab_size=len(VOCABULARY), **LANGUAGE_MODEL),
        vision_config=JanusVisionConfig(
            hidden_size=96,
            num_hidden_layers=2,
            num_attention_heads=4,
            mlp_ratio=3.0,
            image_size=IMAGE_SIZE,
            patch_size=PATCH_SIZE,
            projection_dim=HIDDEN_SIZE,
            num_image_tokens=NUM_IMAGE_TOKENS,
            initializer_range=INITIALIZER_RANGE,
        ),
        vq_config=JanusVQVAEConfig(
            embed_dim=8,
            num_embeddings=CODEBOOK_SIZE,
            latent_channels=32,
            base_channels=32,
            channel_multiplier=(1, 1, 2),
            num_res_blocks=1,
            projection_dim=HIDDEN_SIZE,
            image_token_embed_dim=HIDDEN_SIZE,
        ),
        image_token_id=VOCABULARY.index("<image>"),
    )
    torch.manual_seed(seed)
    model = JanusForConditionalGeneration(config)
    # The image loop of transformers' own `generate` masks the unconditional prompt by these ids.
    model.generation_config = GenerationConfig(
        pad_token_id=config.text_config.pad_token_id,
        bos_token_id=config.text_config.bos_token_id,
        eos_token_id=config.text_config.eos_token_id,
        generation_kwargs={"boi_token_id": VOCABULARY.index("<boi>")},
    )
    return model


def new_unified(seed: int, wording: dict) -> JanusModel:
    """The embedded model with random weights and the wordings of configs/model."""
    return JanusModel(new_model(seed), new_processor(), **wording)
