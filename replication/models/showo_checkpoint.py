"""Checkpoints in the released layout of Show-o: what the hub has in three places stands in one folder.

The folder holds config.json and model.safetensors of Show-o itself, `magvitv2` the image tokenizer, and `phi-1_5` the text
tokenizer and the sizes of the language model. Sizes that a config.json does not state are the released ones.
"""

import json
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoTokenizer, PhiConfig, PhiForCausalLM
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from replication.models.magvit import Magvit, MagvitConfig

IMAGE_TOKENIZER, TEXT_TOKENIZER = "magvitv2", "phi-1_5"
SPECIAL_TOKENS = ["<|soi|>", "<|eoi|>", "<|sov|>", "<|eov|>", "<|t2i|>", "<|mmu|>", "<|t2v|>", "<|v2v|>", "<|lvg|>"]
PAD, IMAGE = (
    "[PAD]",
    "<image>",
)  # IMAGE stands for codes, which replace it before anything is read: its id is that of code 0


class Showo(nn.Module):
    """Language model and image tokenizer; names of parameters are those of the released checkpoints.

    config: what stands in config.json: vocab_size and codebook_size, among others.
    """

    def __init__(self, config, showo, vqmodel):
        super().__init__()
        self.config, self.showo, self.vqmodel = config, showo, vqmodel

    @property
    def device(self):
        return self.showo.device

    @property
    def dtype(self):
        return self.showo.dtype

    @property
    def lm_head(self):
        return self.showo.lm_head

    def get_input_embeddings(self):
        return self.showo.get_input_embeddings()

    @classmethod
    def from_pretrained(cls, path, dtype, **_):
        """The model in `path`, its image tokenizer in float32 whatever `dtype` the language model has, as in the public code, where
        its codes are compared bit by bit; and a dict with its missing_keys. Raises OSError and ValueError where files are missing
        or cannot be read."""
        path = Path(path)
        config = json.loads((path / "config.json").read_text())
        if not {"vocab_size", "codebook_size"} <= config.keys() or config.get("w_clip_vit"):
            raise ValueError("its config.json is not that of a Show-o that sees images by their codes")
        weights = {
            name.removeprefix("showo."): value
            for name, value in load_file(path / "model.safetensors").items()
            if name.startswith("showo.")
        }
        showo, loading = PhiForCausalLM.from_pretrained(
            None,
            config=phi_config(path / TEXT_TOKENIZER, config["vocab_size"]),
            state_dict=weights,
            dtype=dtype,
            output_loading_info=True,
        )
        vqmodel = Magvit(MagvitConfig.from_pretrained(path / IMAGE_TOKENIZER))
        found = vqmodel.load_state_dict(load_file(path / IMAGE_TOKENIZER / "model.safetensors"), strict=False)
        return cls(config, showo, vqmodel), {"missing_keys": [*loading["missing_keys"], *found.missing_keys]}

    def save_pretrained(self, path):
        path = Path(path)
        self.vqmodel.config.save_pretrained(path / IMAGE_TOKENIZER)
        self.showo.config.save_pretrained(path / TEXT_TOKENIZER)
        (path / "config.json").write_text(json.dumps(self.config, indent=2, sort_keys=True) + "\n")
        for module, file in ((self.vqmodel, f"{IMAGE_TOKENIZER}/"), (self.showo, "")):
            prefix = "showo." if module is self.showo else ""
            state = {prefix + name: value.contiguous() for name, value in module.state_dict().items()}
            save_file(state, path / f"{file}model.safetensors", metadata={"format": "pt"})


def phi_config(path, vocab_size):
    """Sizes of the language model in the folder `path`, with what Show-o changes in them."""
    config = PhiConfig.from_pretrained(path, local_files_only=True)
    config.vocab_size, config.qk_layernorm = vocab_size, True
    return config


def square_pictures(side):
    """What makes pixels of pictures: their middle, `side` on a side, in [-1, 1]."""
    return CLIPImageProcessorPil(
        size={"shortest_edge": side}, crop_size=side, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )


class ShowoProcessor:
    """The text tokenizer with the words that Show-o adds to it."""

    image_processor = None  # `square_pictures` of the model's size

    def __init__(self, tokenizer):
        tokenizer.add_special_tokens({"pad_token": PAD})
        tokenizer.add_tokens([*SPECIAL_TOKENS, IMAGE], special_tokens=True)
        self.tokenizer = tokenizer

    @classmethod
    def from_pretrained(cls, path, **_):
        return cls(AutoTokenizer.from_pretrained(Path(path) / TEXT_TOKENIZER, local_files_only=True))

    def save_pretrained(self, path):
        self.tokenizer.save_pretrained(Path(path) / TEXT_TOKENIZER)
