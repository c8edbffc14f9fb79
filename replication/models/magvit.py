"""The image tokenizer of Show-o: MAGVIT-v2's lookup-free quantiser between a convolutional encoder and decoder.

A code is the signs of its latent, read as a binary number; its vector is those signs (arXiv 2310.05737). Names and sizes of
the parameters are those of the released checkpoint, and its blocks are those that transformers has for Janus.
"""

import torch
from torch import nn
from torch.nn.functional import silu
from transformers import PreTrainedConfig
from transformers.models.janus.modeling_janus import (
    JanusVQVAEConvDownsample,
    JanusVQVAEConvUpsample,
    JanusVQVAEMidBlock,
    JanusVQVAEResnetBlock,
)


class MagvitConfig(PreTrainedConfig):
    """Sizes of the image tokenizer, by level from the pixels on; the defaults are those of the released one.

    bits: of a code. encoder_blocks, decoder_blocks: residual blocks of each level; multipliers: channels of each in `channels`.
    """

    model_type = "magvitv2"
    bits: int = 13
    channels: int = 128
    encoder_multipliers: list[int] | tuple[int, ...] = (1, 2, 2, 4, 4)
    encoder_blocks: list[int] | tuple[int, ...] = (4, 3, 4, 3, 4)
    decoder_multipliers: list[int] | tuple[int, ...] = (1, 1, 2, 2, 4)
    decoder_blocks: list[int] | tuple[int, ...] = (4, 4, 3, 4, 3)
    dropout: float = 0.0


def group_norm(channels):
    return nn.GroupNorm(32, channels, eps=1e-6)


class Level(nn.Module):
    """Residual blocks at one resolution, and what leads to the next."""

    def __init__(self, config, channels_in, channels_out, blocks):
        super().__init__()
        widths = [channels_in] + [channels_out] * blocks
        self.block = nn.ModuleList(JanusVQVAEResnetBlock(config, *widths[i : i + 2]) for i in range(blocks))

    def forward(self, hidden_states):
        for block in self.block:
            hidden_states = block(hidden_states)
        return hidden_states


class Encoder(nn.Module):
    """Pixels (B, 3, H, W) to latents (B, bits, rows, columns)."""

    def __init__(self, config):
        super().__init__()
        widths = [config.channels * multiplier for multiplier in (1, *config.encoder_multipliers)]
        self.conv_in = nn.Conv2d(3, widths[0], 3, padding=1)
        self.down = nn.ModuleList()
        for level, blocks in enumerate(config.encoder_blocks):
            self.down.append(Level(config, widths[level], widths[level + 1], blocks))
            if level < len(config.encoder_blocks) - 1:
                self.down[level].downsample = JanusVQVAEConvDownsample(widths[level + 1])
        self.mid = JanusVQVAEMidBlock(config, widths[-1])
        self.norm_out = group_norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], config.bits, 3, padding=1)
        self.quant_conv = nn.Conv2d(config.bits, config.bits, 1)

    def forward(self, pixel_values):
        hidden_states = self.conv_in(pixel_values)
        for level in self.down[:-1]:
            hidden_states = level.downsample(level(hidden_states))
        hidden_states = self.mid(self.down[-1](hidden_states))
        return self.quant_conv(self.conv_out(silu(self.norm_out(hidden_states))))


class Decoder(nn.Module):
    """Vectors of codes (B, bits, rows, columns) to pixels (B, 3, H, W)."""

    def __init__(self, config):
        super().__init__()
        widths = [config.channels * multiplier for multiplier in config.decoder_multipliers]
        self.conv_in = nn.Conv2d(config.bits, widths[-1], 3, padding=1)
        self.mid = JanusVQVAEMidBlock(config, widths[-1])
        self.up = nn.ModuleList()
        for level, blocks in enumerate(config.decoder_blocks):
            self.up.append(Level(config, widths[min(level + 1, len(widths) - 1)], widths[level], blocks))
            if level:
                self.up[level].upsample = JanusVQVAEConvUpsample(widths[level])
        self.norm_out = group_norm(widths[0])
        self.conv_out = nn.Conv2d(widths[0], 3, 3, padding=1)
        self.post_quant_conv = nn.Conv2d(config.bits, config.bits, 1)

    def forward(self, vectors):
        hidden_states = self.mid(self.conv_in(self.post_quant_conv(vectors)))
        for level in reversed(self.up[1:]):
            hidden_states = level.upsample(level(hidden_states))
        return self.conv_out(silu(self.norm_out(self.up[0](hidden_states))))


class LookupFreeQuantizer(nn.Module):
    """Codes are the signs of latents, the first the highest binary digit."""

    def __init__(self, bits):
        super().__init__()
        self.register_buffer("power_vals", 2 ** torch.arange(bits - 1, -1, -1))
        signs = (torch.arange(2**bits)[:, None] & self.power_vals) > 0
        self.register_buffer("embedding", 2.0 * signs - 1)

    def forward(self, latents):
        """Codes (B, rows, columns) of latents (B, bits, rows, columns)."""
        return ((latents > 0) * self.power_vals[:, None, None]).sum(dim=1)


class Magvit(nn.Module):
    """Encoder, quantiser and decoder."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.quantize = LookupFreeQuantizer(config.bits)

    @property
    def patch_size(self):
        """Pixels on a side of what becomes one code."""
        return 2 ** (len(self.config.encoder_blocks) - 1)

    def decode(self, codes):
        """Normalised pixels (B, 3, H, W) of codes (B, rows, columns)."""
        return self.decoder(self.quantize.embedding[codes].permute(0, 3, 1, 2))
