"""Judges with random weights, of the real architectures and in the hub's own format, for tests."""

import torch
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    BertTokenizer,
    BlipConfig,
    BlipForQuestionAnswering,
    CLIPConfig,
    CLIPModel,
    CLIPTokenizer,
    Owlv2Config,
    Owlv2ForObjectDetection,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
)
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.owlv2.image_processing_pil_owlv2 import Owlv2ImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

# As in the released tokenizer: a default system prompt, and an image as one placeholder.
TEMPLATE = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}<|im_start|>system\n"
    "You are a helpful assistant.<|im_end|>\n{% endif %}<|im_start|>{{ message['role'] }}\n"
    "{% for content in message['content'] %}{% if content['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>"]
LAYERS = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}


def save(folder, model, *processors, scale=1.0):
    """Save all to `folder`; weights are drawn with seed 0 by the caller and may be scaled, so that answers differ."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
    model.save_pretrained(folder)
    for processor in processors:
        processor.save_pretrained(folder)
    return folder


def qwen(folder):
    torch.manual_seed(0)
    letters = sorted(ByteLevel.alphabet())
    tokenizer = Qwen2Tokenizer(vocab={letter: index for index, letter in enumerate(letters)}, merges=[])
    tokenizer.add_special_tokens({"additional_special_tokens": SPECIAL[1:]})
    tokenizer.chat_template = TEMPLATE
    ids = dict(zip(SPECIAL, tokenizer.convert_tokens_to_ids(SPECIAL), strict=True))
    text = {**LAYERS, "num_key_value_heads": 2, "vocab_size": len(tokenizer), "max_position_embeddings": 2048}
    text["rope_parameters"] = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4}
    text |= {
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|im_end|>"],
        "pad_token_id": ids["<|endoftext|>"],
    }
    vision = {"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 4, "out_hidden_size": 32}
    vision |= {"fullatt_block_indexes": [1]}
    places = {"image_token_id": "<|image_pad|>", "vision_start_token_id": "<|vision_start|>"}
    places |= {"vision_end_token_id": "<|vision_end|>"}
    config = Qwen2_5_VLConfig(
        text_config=text, vision_config=vision, **{key: ids[token] for key, token in places.items()}
    )
    model = Qwen2_5_VLForConditionalGeneration(config)
    model.generation_config.eos_token_id = ids["<|im_end|>"]
    images = Qwen2VLImageProcessorPil(min_pixels=56 * 56, max_pixels=112 * 112)
    return save(folder, model, tokenizer, images, scale=2.0)


def clip_tokenizer():
    letters = sorted(ByteLevel.alphabet())
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={word: index for index, word in enumerate(words)}, merges=[])


def towers(tokenizer, **text):
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    texts = {**LAYERS, **ends, "vocab_size": len(tokenizer), "max_position_embeddings": 77, **text}
    return {"text_config": texts, "vision_config": {**LAYERS, "image_size": 32, "patch_size": 8}, "projection_dim": 16}


def clip(folder):
    torch.manual_seed(0)
    tokenizer = clip_tokenizer()
    images = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    return save(folder, CLIPModel(CLIPConfig(**towers(tokenizer))), tokenizer, images)


def owlv2(folder):
    torch.manual_seed(0)
    tokenizer = clip_tokenizer()
    config = Owlv2Config(**{**towers(tokenizer, max_position_embeddings=16), "projection_dim": 32})
    images = Owlv2ImageProcessorPil(size={"height": 32, "width": 32})
    return save(folder, Owlv2ForObjectDetection(config), tokenizer, images)


def blip(folder):
    torch.manual_seed(0)
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "yes",
        "no",
        "?",
        "a",
        "the",
        "green",
        "red",
        "bench",
        "bowl",
        "cup",
    ]
    tokenizer = BertTokenizer(vocab={word: index for index, word in enumerate([*words, "[DEC]", "[ENC]"])})
    number = len(words) + 2
    text = {**LAYERS, "vocab_size": number, "encoder_hidden_size": 32, "max_position_embeddings": 40}
    text |= {"bos_token_id": number - 2, "sep_token_id": 3, "eos_token_id": 3, "pad_token_id": 0}
    text |= {"projection_dim": 16, "is_decoder": True}
    vision = {**LAYERS, "image_size": 32, "patch_size": 8, "projection_dim": 16}
    model = BlipForQuestionAnswering(BlipConfig(text_config=text, vision_config=vision, projection_dim=16))
    return save(folder, model, tokenizer, BlipImageProcessorPil(size={"height": 32, "width": 32}), scale=3.0)
