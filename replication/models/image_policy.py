"""The generation branch of Janus as a causal language model, so that TRL's own trainers can train it.

The joint vocabulary numbers the image codes first, [0, V_image), and the text tokens after them,
[V_image, V_image + V_text). Completions are then image codes as they are, prompts are text ids plus V_image, and the
logits of the generation head are already numbered as the labels are. The usual shift makes the begin-of-image position
predict code 1, the position of code 1 predict code 2, and so on: all T codes are learnt.
"""

import re

import torch
from torch import nn
from transformers import GenerationConfig, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast


class ImagePolicyConfig(PreTrainedConfig):
    model_type = "image_policy"


class ImageBackbone(nn.Module):
    """Everything below the last layer of the generation head: joint ids (B, L) to features (B, L, projection)."""

    def __init__(self, janus):
        super().__init__()
        self.language_model = janus.language_model
        self.generation_embeddings = janus.generation_embeddings
        self.generation_aligner = janus.generation_aligner
        self.generation_head = janus.generation_head

    def embed(self, input_ids):
        """Embeddings (B, L, hidden): codes through the generation embeddings and aligner, text through the text table."""
        num_codes = self.generation_embeddings.num_embeddings
        text = self.language_model.embed_tokens((input_ids - num_codes).clamp(min=0))
        codes = self.generation_aligner(self.generation_embeddings(input_ids.clamp(max=num_codes - 1)))
        return torch.where((input_ids < num_codes)[..., None], codes, text)

    def forward(self, input_ids, attention_mask=None, position_ids=None, use_cache=False):
        hidden_states = self.language_model(
            inputs_embeds=self.embed(input_ids),
            attention_mask=attention_mask,
            position_ids=position_ids,
            use_cache=use_cache,
        ).last_hidden_state
        head = self.generation_head
        return BaseModelOutputWithPast(last_hidden_state=head.activation_fn(head.proj_out(hidden_states)))


class ImagePolicy(PreTrainedModel):
    """pi(x | y) over the joint vocabulary; shares its parameters with `unified`, a `JanusModel`.

    trained_modules: regular expression that the names of the trained parameters begin with; `language_model` in the paper
    (section 3). All other parameters of the unified model are frozen, and the vision tower is not even seen.
    Raises ValueError when no parameter matches.
    """

    config_class = ImagePolicyConfig
    base_model_prefix = "backbone"
    supports_gradient_checkpointing = True
    _supports_sdpa = True

    def __init__(self, unified, trained_modules):
        config = unified.model.config
        super().__init__(ImagePolicyConfig(vocab_size=config.vq_config.num_embeddings + config.text_config.vocab_size))
        self.unified = unified
        self.backbone = ImageBackbone(unified.model.model)
        self.generation_config = GenerationConfig()
        unified.model.requires_grad_(False)
        for name, parameter in self.backbone.named_parameters():
            parameter.requires_grad_(re.match(trained_modules, name) is not None)
        if not any(parameter.requires_grad for parameter in self.parameters()):
            raise ValueError(f"trained_modules={trained_modules!r} matches no parameter of the generation branch.")

    @property
    def tokenizer(self):
        """The text tokenizer, which TRL asks for its padding id (padding is masked, so its meaning is irrelevant)."""
        return self.unified.processor.tokenizer

    def get_output_embeddings(self):
        """The last layer of the generation head, (V_image, projection)."""
        return self.backbone.generation_head.vision_head

    def prompt_ids(self, prompts):
        """Ids in the joint vocabulary, one list per prompt, from begin-of-sequence to begin-of-image."""
        num_codes = self.backbone.generation_embeddings.num_embeddings
        return [[num_codes + i for i in ids] for ids in self.unified.generation_ids(prompts)]

    def without_prompts(self, input_ids):
        """Joint ids (B, L) with the prompts as sampling with guidance reads no prompt; image codes stay."""
        num_codes = self.backbone.generation_embeddings.num_embeddings
        text = num_codes + self.unified.unconditional_ids(input_ids - num_codes)
        return torch.where(input_ids < num_codes, input_ids, text)

    def forward(self, input_ids, attention_mask=None, position_ids=None, use_cache=False):
        """Logits (B, L, V_image) of the next image code at every position of joint ids (B, L)."""
        features = self.backbone(input_ids, attention_mask, position_ids, use_cache).last_hidden_state
        return CausalLMOutputWithPast(logits=self.get_output_embeddings()(features))
