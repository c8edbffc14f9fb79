"""Small random checkpoints in the layouts of the hub. That of the released Janus-Pro: byte-level tokenizer that calls itself
LlamaTokenizerFast, its special tokens, chat template, default system prompt, generation config, several files of weights."""

import json

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch.nn.functional import cross_entropy
from transformers import (
    Emu3Config,
    Emu3ForConditionalGeneration,
    Emu3ImageProcessor,
    Emu3Processor,
    Emu3TextConfig,
    Emu3VQVAEConfig,
    GenerationConfig,
    JanusConfig,
    JanusForConditionalGeneration,
    JanusProcessor,
    JanusVisionConfig,
    JanusVQVAEConfig,
    LlamaConfig,
    PhiConfig,
    PhiForCausalLM,
    PreTrainedTokenizerFast,
)
from transformers.models.janus.image_processing_pil_janus import JanusImageProcessorPil

from replication.config import load_stage
from replication.models.janus import JanusModel
from replication.models.magvit import Magvit, MagvitConfig

IMAGE_SIZE, PATCH_SIZE, CODEBOOK_SIZE, HIDDEN_SIZE = 24, 4, 64, 32
NUM_IMAGE_TOKENS = (IMAGE_SIZE // PATCH_SIZE) ** 2
LANGUAGE_MODEL = {
    "hidden_size": HIDDEN_SIZE,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.15,
}
BOS, EOS, PAD = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>"
EXTRA = {"image_token": "<image_placeholder>", "boi_token": "<begin_of_image>", "eoi_token": "<end_of_image>"}
# Our own template with the output of the released one for the messages of one turn.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|User|>: ' if message['role'] == 'user' else '<|Assistant|>: ' }}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image_placeholder>{{ '\\n' if not loop.last }}"
    "{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{{ '\\n\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<|Assistant|>:{% endif %}"
)
HUB_MODEL = load_stage("candidates", "paper")["model"] | {"device": "cpu", "dtype": "float32", "compile": False}
PROMPTS = ["a green bench and a blue bowl", "a wooden chair", "four trucks near the round, metallic fence at the lake"]


def new_tokenizer():
    """Byte-level pairs, single digits, learnt from the question and a few prompts."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    specials = [BOS, EOS, PAD, *EXTRA.values(), "<|User|>", "<|Assistant|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([HUB_MODEL["turn"], HUB_MODEL["question"], *PROMPTS], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        clean_up_tokenization_spaces=False,
        extra_special_tokens=EXTRA,
    )


def new_hub_checkpoint(path, seed=0):
    """Write the checkpoint into the folder `path`."""
    tokenizer = new_tokenizer()
    special = {"pad_token_id": tokenizer.pad_token_id, "bos_token_id": tokenizer.bos_token_id}
    config = JanusConfig(
        text_config=LlamaConfig(
            vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id, **LANGUAGE_MODEL, **special
        ),
        vision_config=JanusVisionConfig(
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            image_size=IMAGE_SIZE,
            patch_size=PATCH_SIZE,
            projection_dim=HIDDEN_SIZE,
            num_image_tokens=NUM_IMAGE_TOKENS,
            initializer_range=0.15,
        ),
        vq_config=JanusVQVAEConfig(
            embed_dim=8,
            num_embeddings=CODEBOOK_SIZE,
            latent_channels=32,
            base_channels=32,
            channel_multiplier=(1, 1, 1),
            num_res_blocks=1,
            projection_dim=HIDDEN_SIZE,
            image_token_embed_dim=HIDDEN_SIZE,
        ),
        image_token_id=tokenizer.image_token_id,
    )
    torch.manual_seed(seed)
    model = JanusForConditionalGeneration(config)
    with torch.no_grad():
        model.model.generation_head.vision_head.weight.mul_(4)  # distributions that are far from flat
    model.generation_config = GenerationConfig(
        temperature=1,
        guidance_scale=5,
        eos_token_id=tokenizer.eos_token_id,
        generation_kwargs={"boi_token_id": tokenizer.boi_token_id},
        **special,
    )
    processor = JanusProcessor(
        JanusImageProcessorPil(
            size={"height": IMAGE_SIZE, "width": IMAGE_SIZE}, image_mean=[0.5] * 3, image_std=[0.5] * 3
        ),
        tokenizer,
        chat_template=CHAT_TEMPLATE,
        use_default_system_prompt=True,
        num_image_tokens=NUM_IMAGE_TOKENS,
    )
    model.save_pretrained(path, max_shard_size="300KB")
    processor.save_pretrained(path)
    config_file = path / "tokenizer_config.json"
    config_file.write_text(json.dumps(json.loads(config_file.read_text()) | {"tokenizer_class": "LlamaTokenizerFast"}))


def teach_to_answer(path, steps=150):
    """Train the checkpoint in `path` to write "The score is 1." about images that are redder than most, and 0 about others."""
    unified = JanusModel.load(path, HUB_MODEL)
    model, tokenizer = unified.model, unified.processor.tokenizer
    prompts = [PROMPTS[i % 3] for i in range(24)]
    codes, _ = unified.sample_images(prompts, list(range(24)), 5.0, 1.0)
    images = unified.decode_images(codes)
    red = images[..., 0].mean(axis=(1, 2))
    answers = [
        tokenizer.encode(f" The score is {int(r > sorted(red)[12])}.{EOS}", add_special_tokens=False) for r in red
    ]
    answers = torch.tensor(answers)
    question_ids, mask = unified._questions(images, prompts)
    input_ids, mask = torch.cat([question_ids, answers], dim=1), torch.cat([mask, torch.ones_like(answers)], dim=1)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(steps):
        hidden_states = unified._hidden_states(unified.pixel_values(images), input_ids, mask)[
            :, -answers.shape[1] - 1 : -1
        ]
        loss = cross_entropy(model.lm_head(hidden_states).flatten(0, 1), answers.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    unified.save(path)
    return loss.item()


EMU3_MODEL = load_stage("candidates", "paper", overrides=("choices.model=emu3_gen",))["model"] | {
    "device": "cpu",
    "dtype": "float32",
    "compile": False,
    "image_area": 40 * 40,
}
EMU3_EXTRA = {
    "image_token": "<image>",
    "boi_token": "<|image start|>",
    "eoi_token": "<|image end|>",
    "image_wrapper_token": "<|image token|>",
    "eof_token": "<|extra_201|>",
}


def new_emu3_checkpoint(path, seed=0):
    """Write a random checkpoint in the layout of Emu3-Gen-hf: its special tokens, codes of 8 pixels, four frames per image, and
    pictures of 24 x 24 to 64 x 64, of which 40 x 40 are drawn."""
    codes = [f"<|visual token {code:06d}|>" for code in range(CODEBOOK_SIZE)]
    specials = ["<|endoftext|>", "<|extra_200|>", *EMU3_EXTRA.values(), "<|extra_203|>", "<|extra_204|>", *codes]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([EMU3_MODEL["turn"], EMU3_MODEL["question"], *PROMPTS, "1*1 2*2 0*0"], trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|extra_203|>",
        eos_token="<|extra_204|>",
        pad_token="<|endoftext|>",
        clean_up_tokenization_spaces=False,
        extra_special_tokens=EMU3_EXTRA,
    )
    special = {key: getattr(tokenizer, key) for key in ("pad_token_id", "bos_token_id", "eos_token_id")}
    config = Emu3Config(
        text_config=Emu3TextConfig(vocab_size=len(tokenizer), num_key_value_heads=1, **LANGUAGE_MODEL, **special),
        vq_config=Emu3VQVAEConfig(
            codebook_size=CODEBOOK_SIZE,
            base_channels=32,
            channel_multiplier=(1, 1, 1, 1),
            num_res_blocks=1,
            hidden_size=32,
        ),
        vocabulary_map=tokenizer.get_vocab(),
    )
    torch.manual_seed(seed)
    model = Emu3ForConditionalGeneration(config)
    model.generation_config = GenerationConfig(**special)
    model.save_pretrained(path, max_shard_size="300KB")
    images = Emu3ImageProcessor(min_pixels=24 * 24, max_pixels=64 * 64)
    Emu3Processor(images, tokenizer).save_pretrained(path)


SHOWO_MODEL = load_stage("candidates", "paper", overrides=("choices.model=showo_512",))["model"] | {
    "device": "cpu",
    "dtype": "float32",
    "image_area": 8 * 8,  # 16 codes of 2 x 2 pixels
    "decoding_steps": 6,
}


def new_showo_checkpoint(path, seed=0):
    """A random checkpoint as the hub's three repositories put together: configurations that say what those of the hub say, and
    the text tokenizer without the words that Show-o adds."""
    (path / "phi-1_5").mkdir(parents=True)
    (path / "magvitv2").mkdir()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([" Yes No"] * 9 + PROMPTS, trainer)
    special_tokens = {f"{name}_token": "<|endoftext|>" for name in ("bos", "eos", "unk")}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **special_tokens
    )
    tokenizer.save_pretrained(path / "phi-1_5")
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    PhiConfig(vocab_size=320, **sizes).save_pretrained(path / "phi-1_5")  # another vocabulary, no qk_layernorm
    words, bits = len(tokenizer) + 10, 5
    magvit = {"bits": bits, "channels": 32, "encoder_multipliers": [1, 1], "encoder_blocks": [2, 1]}
    magvit |= {"decoder_multipliers": [1, 1], "decoder_blocks": [1, 2]}
    (path / "magvitv2" / "config.json").write_text(
        json.dumps({"_class_name": "MAGVITv2", "_version": "0.0.1", **magvit})
    )
    config = {
        "_class_name": "Showo",
        "llm_vocab_size": len(tokenizer),
        "codebook_size": 2**bits,
        "vocab_size": words + 2**bits + 1,
    }
    (path / "config.json").write_text(json.dumps({**config, "mask_token_id": words + 2**bits, "num_vq_tokens": 256}))
    torch.manual_seed(seed)
    showo = PhiForCausalLM(
        PhiConfig(vocab_size=config["vocab_size"], qk_layernorm=True, initializer_range=0.2, **sizes)
    )
    save_file({f"showo.{name}": value for name, value in showo.state_dict().items()}, path / "model.safetensors")
    save_file(Magvit(MagvitConfig(**magvit)).state_dict(), path / "magvitv2" / "model.safetensors")
