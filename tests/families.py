"""What transformers' own classes say, family by family: references that share no code with the adapters."""

import numpy as np
import torch
from transformers import GenerationConfig

from replication.models import tiny, tiny_emu3
from replication.models.tiny import PATCH_SIZE
from replication.models.tiny_emu3 import END_OF_ROW, ROWS

UNTRAINED = {"janus": tiny, "emu3": tiny_emu3}
HEADS = {"janus": "model.generation_head.vision_head", "emu3": "lm_head"}
LANGUAGE_MODELS = {"janus": "model.language_model", "emu3": "model.text_model"}
AFTER_PROMPT = {"janus": ["<boi>"], "emu3": ["<boi>", "6*6", "<wrapper>"]}


def processor_of(model):
    """The processor of transformers; that of Emu3 believes that a code is 8 pixels wide, whatever its configuration says."""
    model.processor.downsample_ratio = PATCH_SIZE
    return model.processor


def drawing_inputs(family, model, prompts):
    """Inputs of the processor of transformers that ask for images of `prompts`."""
    how = {"janus": {"generation_mode": "image"}, "emu3": {"return_for_image_generation": True, "image_area": 576}}
    inputs = processor_of(model)(text=list(prompts), padding=True, return_tensors="pt", **how[family])
    return inputs["input_ids"], inputs["attention_mask"]


def written(model, codes):
    """Emu3's token ids (B, 42) of codes (B, 36), each row of six with its end."""
    mapping = model.model.vocabulary_mapping
    return torch.stack([mapping.convert_img2bpe(image).flatten() for image in codes.view(-1, ROWS, ROWS)]).long()


def code_logits(family, model, input_ids, codes):
    """Plain recomputation without cache, padding or position ids: logits (B, T, V) of every code after one prompt (1, L)."""
    prompt, top = input_ids.expand(len(codes), -1), model.model
    if family == "janus":
        images = top.prepare_embeddings_for_image_generation(codes)
        embeddings = torch.cat([top.get_input_embeddings()(prompt), images], dim=1)
        hidden_states = top.model.language_model(inputs_embeds=embeddings).last_hidden_state
        return top.model.generation_head(hidden_states)[:, prompt.shape[1] - 1 : -1]
    tokens = written(model, codes)
    logits = top(input_ids=torch.cat([prompt, tokens], dim=1)).logits[:, prompt.shape[1] - 1 : -1]
    drawn = tokens[0] != top.config.vocabulary_map[END_OF_ROW]
    return logits[:, drawn][:, :, top.vocabulary_mapping.image_tokens]


def greedy_codes(family, model, prompts, guidance_scale):
    """Codes (B, T) of transformers' own `generate`."""
    input_ids, attention_mask = drawing_inputs(family, model, prompts)
    tokenizer, top = model.processor.tokenizer, model.model
    inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "do_sample": False}
    if family == "janus":
        top.generation_config = GenerationConfig(
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            generation_kwargs={"boi_token_id": tokenizer.boi_token_id},
        )
        return top.generate(**inputs, generation_mode="image", guidance_scale=guidance_scale)
    blank = input_ids.clone()
    for row, length in enumerate(attention_mask.sum(dim=1).tolist()):
        blank[row, input_ids.shape[1] - length + 1 : -3] = tokenizer.pad_token_id
    codes = top.vocabulary_mapping.image_tokens

    def allowed(_, ids):
        ends = (len(ids) - input_ids.shape[1] + 1) % (ROWS + 1) == 0
        return [top.config.vocabulary_map[END_OF_ROW]] if ends else codes

    tokens = top.generate(
        **inputs,
        prefix_allowed_tokens_fn=allowed,
        guidance_scale=guidance_scale,
        negative_prompt_ids=blank,
        negative_prompt_attention_mask=attention_mask,
        max_new_tokens=ROWS * (ROWS + 1),
    )[:, input_ids.shape[1] :]
    return top.vocabulary_mapping.convert_bpe2img(tokens.view(len(tokens), ROWS, ROWS + 1)).flatten(1)


def decoded(family, model, codes):
    """Images (B, 24, 24, 3) uint8 of transformers' own decoding and post-processing."""
    if family == "janus":
        pixels = model.model.decode_image_tokens(codes).detach().permute(0, 3, 1, 2)
        return np.stack(model.processor.postprocess(list(pixels))["pixel_values"]).transpose(0, 2, 3, 1)
    tokens = torch.nn.functional.pad(written(model, codes), (0, 3))  # end of image, and of sequence
    pixels = model.model.decode_image_tokens(image_tokens=tokens, height=ROWS, width=ROWS)
    return np.stack([np.asarray(image) for image in model.processor.postprocess(list(pixels))["pixel_values"]])


def next_code_logits(family, model, prompt, codes):
    """Logits (V,) of the code after `codes`, as the definition reads: the whole sequence anew, no padding, no mask, no cache."""
    top, vocabulary = model.model, model.processor.tokenizer.get_vocab()
    ids = [vocabulary[word] for word in ["<bos>", *prompt.split(), *AFTER_PROMPT[family]]]
    if family == "janus":
        inputs = [top.model.language_model.embed_tokens.weight[token] for token in ids]
        inputs += [top.model.generation_aligner(top.model.generation_embeddings.weight[code]) for code in codes]
        hidden_states = top.model.language_model(inputs_embeds=torch.stack(inputs)[None], use_cache=False)
        return top.model.generation_head(hidden_states.last_hidden_state[0, -1])
    for number, code in enumerate(codes, start=1):
        ids.append(vocabulary[f"<|visual token {code:06d}|>"])
        if number % ROWS == 0:
            ids.append(vocabulary[END_OF_ROW])
    logits = top(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
    return logits[vocabulary["<|visual token 000000|>"] : vocabulary["<|visual token 000319|>"] + 1]
