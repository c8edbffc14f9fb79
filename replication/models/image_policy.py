"""The generation branch as a causal language model, so that TRL's own trainers can train it.

The joint vocabulary numbers the image codes first, [0, V_image), and the text tokens after them,
[V_image, V_image + V_text). Completions are then image codes as they are, prompts are text ids plus V_image, and the
logits of the generation head are already numbered as the labels are. The usual shift makes the last position of the prompt
predict code 1, the position of code 1 predict code 2, and so on: all T codes are learnt.
"""

import re

import torch
from torch import nn
from torch.nn.functional import linear
from transformers import GenerationConfig, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast


class ImagePolicyConfig(PreTrainedConfig):
    model_type = "image_policy"


class CodeHead(nn.Module):
    """The rows of a language model's head that are image codes, as a linear layer without weights of its own."""

    def __init__(self, lm_head, codes):
        super().__init__()
        self.lm_head, self.codes = lm_head, codes

    @property
    def weight(self):
        return self.lm_head.weight[self.codes]

    @property
    def bias(self):
        return None if self.lm_head.bias is None else self.lm_head.bias[self.codes]

    def forward(self, hidden_states):
        return linear(hidden_states, self.weight, self.bias)


class ImageBackbone(nn.Module):
    """Everything below the last layer of the generation head: joint ids (B, L) to features (B, L, width).

    A family defines `embed`, `features` and `last_layer`, the module whose `weight` (V_image, width) makes logits of features.
    """

    def __init__(self, language_model, num_codes):
        super().__init__()
        self.language_model, self.num_codes = language_model, num_codes

    def embed(self, input_ids):
        """What the language model reads, (B, L, hidden), of joint ids (B, L)."""
        raise NotImplementedError

    def features(self, hidden_states):
        """Inputs of the last layer, of last hidden states."""
        raise NotImplementedError

    def forward(self, input_ids, attention_mask=None, position_ids=None, use_cache=False):
        hidden_states = self.language_model(
            inputs_embeds=self.embed(input_ids),
            attention_mask=attention_mask,
            position_ids=position_ids,
            use_cache=use_cache,
        ).last_hidden_state
        return BaseModelOutputWithPast(last_hidden_state=self.features(hidden_states))


class ImagePolicy(PreTrainedModel):
    """pi(x | y) over the joint vocabulary; shares its parameters with `unified`, a `WordedModel`.

    backbone: the family's `ImageBackbone`. trained_modules: regular expression that the names of the backbone's trained parameters
    begin with; `language_model` in the paper (section 3). All other parameters of the unified model are frozen, and what the
    backbone does not have, such as a vision tower, is not even seen.
    Raises SystemExit with one sentence when no parameter matches.
    """

    config_class = ImagePolicyConfig
    base_model_prefix = "backbone"
    supports_gradient_checkpointing = True
    _supports_sdpa = True

    def __init__(self, unified, backbone, trained_modules):
        super().__init__(
            ImagePolicyConfig(vocab_size=unified.num_codes + unified.model.get_input_embeddings().num_embeddings)
        )
        self.unified = unified
        self.backbone = backbone
        self.generation_config = GenerationConfig()
        self._no_split_modules = backbone.language_model._no_split_modules  # its layers: units of FSDP
        unified.model.requires_grad_(False)
        for name, parameter in self.backbone.named_parameters():
            parameter.requires_grad_(re.match(trained_modules, name) is not None)
        if not any(parameter.requires_grad for parameter in self.parameters()):
            raise SystemExit(f"trained_modules={trained_modules!r} matches no parameter of the generation branch.")

    @property
    def tokenizer(self):
        """The text tokenizer, which TRL asks for its padding id (padding is masked, so its meaning is irrelevant)."""
        return self.unified.processor.tokenizer

    def get_input_embeddings(self):
        """The text embedding (of all tokens, where codes are words like others)."""
        return self.backbone.language_model.get_input_embeddings()

    def get_output_embeddings(self):
        """The last layer of the generation head, (V_image, width)."""
        return self.backbone.last_layer

    def prompt_ids(self, prompts):
        """Ids in the joint vocabulary, one list per prompt, from begin-of-sequence to what predicts the first code."""
        num_codes = self.unified.num_codes
        return [[num_codes + i for i in ids] for ids in self.unified.generation_ids(prompts)]

    def without_prompts(self, input_ids):
        """Joint ids (B, L) with the prompts as sampling with guidance reads no prompt; image codes stay."""
        num_codes = self.unified.num_codes
        text = num_codes + self.unified.unconditional_ids(input_ids - num_codes)
        return torch.where(input_ids < num_codes, input_ids, text)

    def forward(self, input_ids, attention_mask=None, position_ids=None, use_cache=False):
        """Logits (B, L, V_image) of the next image code at every position of joint ids (B, L)."""
        features = self.backbone(input_ids, attention_mask, position_ids, use_cache).last_hidden_state
        return CausalLMOutputWithPast(logits=self.get_output_embeddings()(features))
