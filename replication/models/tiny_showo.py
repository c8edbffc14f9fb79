"""The embedded model of the masked-diffusion family: a small configuration of transformers' own Phi and of MAGVIT-v2's tokenizer,
with the words and images of the embedded Janus, about as many weights, and 512 codes, the next power of 2."""

import torch
from transformers import PhiConfig, PhiForCausalLM, PreTrainedTokenizerFast

from replication.models import tiny
from replication.models.magvit import Magvit, MagvitConfig
from replication.models.showo import ShowoModel
from replication.models.showo_checkpoint import IMAGE, PAD, SPECIAL_TOKENS, Showo, ShowoProcessor

BITS = 9  # of a code: scenes have 301 patches that look different
WORDS = [word for word in tiny.VOCABULARY if word not in tiny.SPECIAL_TOKENS.values()]
VOCABULARY = (PAD, "<bos>", "<eos>", "<unk>", *WORDS, *SPECIAL_TOKENS, IMAGE)


def new_processor() -> ShowoProcessor:
    """One token per word."""
    special_tokens = {"bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>"}
    tokenizer = tiny.word_tokenizer(VOCABULARY, special_tokens)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer, padding_side="left", **special_tokens)
    return ShowoProcessor(tokenizer)


def new_model(seed: int) -> Showo:
    """The embedded model with random weights: 0.54 M parameters in its language model."""
    codes, words = 2**BITS, len(VOCABULARY) - 1
    config = {"vocab_size": words + codes + 1, "codebook_size": codes}
    torch.manual_seed(seed)
    showo = PhiForCausalLM(
        PhiConfig(
            vocab_size=config["vocab_size"],
            qk_layernorm=True,
            **{**tiny.LANGUAGE_MODEL, "intermediate_size": 432},  # of two matrices in place of three
        )
    )
    vqmodel = Magvit(
        MagvitConfig(
            bits=BITS,
            channels=32,
            encoder_multipliers=(1, 1, 2),
            encoder_blocks=(1, 1, 1),
            decoder_multipliers=(1, 1, 2),
            decoder_blocks=(2, 2, 2),
        )
    )
    return Showo(config, showo, vqmodel)


def new_unified(seed: int, wording: dict) -> ShowoModel:
    """The embedded model with random weights and the wordings of configs/model."""
    return ShowoModel(new_model(seed), new_processor(), **wording)
