"""Models of Janus-Pro's real sizes with random weights, for memory and speed; nothing is downloaded."""

import torch
from transformers import (
    JanusConfig,
    JanusForConditionalGeneration,
    JanusProcessor,
    JanusVisionConfig,
    JanusVQVAEConfig,
    LlamaConfig,
)
from transformers.models.janus.image_processing_pil_janus import JanusImageProcessorPil

from replication.models.janus import JanusModel
from replication.models.tiny import new_processor

# hidden_size, intermediate_size, layers, heads of the language model: the `config.json` of deepseek-community/Janus-Pro-1B, -7B
LANGUAGE_MODELS = {"1b": (2048, 5632, 24, 16), "7b": (4096, 11008, 30, 32)}
QUESTION = "does this image describe {prompt} ?"


def janus_pro(size, device, dtype):
    """A `JanusModel` of the sizes of Janus-Pro-1B or -7B: 576 codes of 16,384, 384 x 384 pixels, a SigLIP-L that sees.

    Its weights are random and its tokenizer is the embedded model's, of which it uses the first few rows of 102,400.
    """
    hidden, intermediate, layers, heads = LANGUAGE_MODELS[size]
    small = new_processor()
    config = JanusConfig(
        text_config=LlamaConfig(
            vocab_size=102400,
            hidden_size=hidden,
            intermediate_size=intermediate,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            max_position_embeddings=16384,
            pad_token_id=small.tokenizer.pad_token_id,
            bos_token_id=small.tokenizer.bos_token_id,
            eos_token_id=small.tokenizer.eos_token_id,
        ),
        vision_config=JanusVisionConfig(projection_dim=hidden),
        vq_config=JanusVQVAEConfig(projection_dim=hidden, image_token_embed_dim=hidden),
        image_token_id=small.tokenizer.convert_tokens_to_ids("<image>"),
    )
    processor = JanusProcessor(
        JanusImageProcessorPil(image_mean=[0.5] * 3, image_std=[0.5] * 3), small.tokenizer, num_image_tokens=576
    )
    torch.manual_seed(0)
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model = JanusForConditionalGeneration(config)
    finally:
        torch.set_default_dtype(default)
    model.generation_config.generation_kwargs = {"boi_token_id": small.tokenizer.boi_token_id}
    model.generation_config.pad_token_id = small.tokenizer.pad_token_id
    model.generation_config.bos_token_id = small.tokenizer.bos_token_id
    return JanusModel(model.eval(), processor, QUESTION, "yes", "no", compiled=device == "cuda")
