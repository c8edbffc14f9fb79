"""What transformers' own classes say, family by family: references that share no code with the adapters.

Of Show-o, transformers has the language model only: the rest is written here as its definition reads, one image, one token at a
time. `likelihood_order` is the one thing that has no definition elsewhere: how a request names the order of its codes.
"""

import math

import numpy as np
import torch
from transformers import GenerationConfig

from replication.models import tiny, tiny_emu3, tiny_showo
from replication.models.tiny import PATCH_SIZE
from replication.models.tiny_emu3 import END_OF_ROW, ROWS
from replication.sampling import gumbel_noise, image_seed

UNTRAINED = {"janus": tiny, "emu3": tiny_emu3, "showo": tiny_showo}
AUTOREGRESSIVE = ("janus", "emu3")
HEADS = {"janus": "model.generation_head.vision_head", "emu3": "lm_head", "showo": "showo.lm_head"}
LANGUAGE_MODELS = {"janus": "model.language_model", "emu3": "model.text_model", "showo": "showo.model"}
AFTER_PROMPT = {"janus": ["<boi>"], "emu3": ["<boi>", "6*6", "<wrapper>"], "showo": ["<eos>", "<|soi|>"]}
BEFORE_PROMPT = {"janus": ["<bos>"], "emu3": ["<bos>"], "showo": ["<|t2i|>", "<bos>"]}


def ids_of(model, words):
    vocabulary = model.processor.tokenizer.get_vocab()
    return [vocabulary[word] for word in words]


def processor_of(model):
    """The processor of transformers; that of Emu3 believes that a code is 8 pixels wide, whatever its configuration says."""
    model.processor.downsample_ratio = PATCH_SIZE
    return model.processor


def drawing_inputs(family, model, prompts):
    """Inputs of the processor of transformers that ask for images of `prompts`."""
    if family == "showo":
        words = [[*BEFORE_PROMPT[family], *prompt.split(), *AFTER_PROMPT[family]] for prompt in prompts]
        longest = max(map(len, words))
        ids = torch.tensor([ids_of(model, ["[PAD]"] * (longest - len(row)) + row) for row in words])
        return ids, (ids != 0).long()
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
    if family == "showo":
        return torch.tensor([greedy_parallel(model, prompt, guidance_scale) for prompt in prompts])
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
    if family == "showo":
        signs = [[2.0 * int(digit) - 1 for digit in f"{code:09b}"] for code in codes.flatten().tolist()]
        vectors = torch.tensor(signs).view(len(codes), 6, 6, 9).permute(0, 3, 1, 2)
        pixels = (model.model.vqmodel.decoder(vectors).detach().clamp(-1, 1) + 1) / 2 * 255
        return pixels.permute(0, 2, 3, 1).to(torch.uint8).numpy()
    if family == "janus":
        pixels = model.model.decode_image_tokens(codes).detach().permute(0, 3, 1, 2)
        return np.stack(model.processor.postprocess(list(pixels))["pixel_values"]).transpose(0, 2, 3, 1)
    tokens = torch.nn.functional.pad(written(model, codes), (0, 3))  # end of image, and of sequence
    pixels = model.model.decode_image_tokens(image_tokens=tokens, height=ROWS, width=ROWS)
    return np.stack([np.asarray(image) for image in model.processor.postprocess(list(pixels))["pixel_values"]])


def code_logits_alone(family, model, prompt, codes, number):
    """Logits (V,) of code `number` of `codes`, as the definition reads: the whole sequence anew, no padding, no batch, no cache."""
    if family == "showo":
        order = likelihood_order(model, prompt)
        seen = [code if order[i] < order[number] else model.num_codes for i, code in enumerate(codes)]
        return hidden_code_logits(model, prompt, seen)[number]
    top, vocabulary = model.model, model.processor.tokenizer.get_vocab()
    ids = ids_of(model, [*BEFORE_PROMPT[family], *prompt.split(), *AFTER_PROMPT[family]])
    if family == "janus":
        inputs = [top.model.language_model.embed_tokens.weight[token] for token in ids]
        inputs += [
            top.model.generation_aligner(top.model.generation_embeddings.weight[code]) for code in codes[:number]
        ]
        hidden_states = top.model.language_model(inputs_embeds=torch.stack(inputs)[None], use_cache=False)
        return top.model.generation_head(hidden_states.last_hidden_state[0, -1])
    for place, code in enumerate(codes[:number], start=1):
        ids.append(vocabulary[f"<|visual token {code:06d}|>"])
        if place % ROWS == 0:
            ids.append(vocabulary[END_OF_ROW])
    logits = top(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
    return logits[vocabulary["<|visual token 000000|>"] : vocabulary["<|visual token 000319|>"] + 1]


def text_inputs(family, model, text, image):
    """Inputs of the model that read `text`, in which <image> stands for a picture (H, W, 3) or is left out."""
    if family == "showo":
        return {"ids": question_ids(model, text.removeprefix("<image> ").split()), "image": image}
    return processor_of(model)(text=[text], images=[image], return_tensors="pt")


def text_logits(family, model, inputs):
    """Logits (L, vocabulary) of what follows each token of `text_inputs`."""
    if family != "showo":
        return model.model(**inputs).logits[0]
    return showo_logits(model, with_codes(model, inputs["ids"], inputs["image"]), whole=range(39))


def question_ids(model, words):
    """Show-o's token ids of a question about an image, for whose codes <image> stands: 39 tokens, and the words."""
    return ids_of(model, ["<|mmu|>", "<|soi|>", *["<image>"] * 36, "<|eoi|>", "<bos>", *words])


def with_codes(model, ids, image):
    """`ids` with the codes of a picture in place of what stands for them: the signs of its latents, as binary numbers."""
    pixels = torch.tensor(image).permute(2, 0, 1)[None] / 127.5 - 1
    latents = model.model.vqmodel.encoder(pixels.to(model.model.dtype))[0].flatten(1).T
    codes = [int("".join(str(int(value > 0)) for value in latent), 2) for latent in latents]
    return [*ids[:2], *(model.first_code + code for code in codes), *ids[38:]]


def showo_logits(model, ids, whole):
    """Logits (L, vocabulary) of one row of ids, of which those at the places `whole` see one another, and the rest what is before."""
    seen = torch.zeros(len(ids), len(ids))
    for row in range(len(ids)):
        for column in range(len(ids)):
            if not (column <= row or (row in whole and column in whole)):
                seen[row, column] = -torch.inf
    return model.model.showo(
        input_ids=torch.tensor([ids]), attention_mask=seen[None, None].to(model.model.dtype), use_cache=False
    ).logits[0]


def hidden_code_logits(model, prompt, codes):
    """Logits (36, V) of codes in their own places, those that are `num_codes` hidden."""
    words = [*BEFORE_PROMPT["showo"], *prompt.split(), *AFTER_PROMPT["showo"]] if prompt else None
    ids = ids_of(model, words or [*BEFORE_PROMPT["showo"], *AFTER_PROMPT["showo"]])
    first = len(ids)
    ids += [model.first_code + code for code in codes] + ids_of(model, ["<|eoi|>"])
    logits = showo_logits(model, ids, whole=range(first - 1, len(ids)))
    return logits[first : first + 36, model.first_code : model.first_code + model.num_codes]


def likelihood_order(model, prompt):
    """The step of each code: by the noise of the stream that the request names, and the cosine schedule."""
    ids = ids_of(model, [*BEFORE_PROMPT["showo"], *prompt.split(), *AFTER_PROMPT["showo"]])
    seed = image_seed(0, "order of likelihood", " ".join(map(str, ids)), 0)
    noise = gumbel_noise(torch.tensor([seed]), torch.arange(36))[0].tolist()
    left = [
        math.floor(36 * math.cos(math.pi / 2 * step / model.likelihood_steps))
        for step in range(1, model.likelihood_steps)
    ]
    ranks = {place: rank for rank, place in enumerate(sorted(range(36), key=lambda place: noise[place]))}
    return [sum(36 - ranks[place] <= hidden for hidden in left) for place in range(36)]


def greedy_parallel(model, prompt, guidance_scale):
    """The codes of one image, the likeliest in every step, and the most certain of them kept."""
    codes = [model.num_codes] * 36
    for step in range(model.decoding_steps):
        own, unconditional = (hidden_code_logits(model, text, codes).detach() for text in (prompt, ""))
        logits = unconditional + guidance_scale * (own - unconditional)
        best = logits.log_softmax(dim=1).max(dim=1)
        left = math.floor(36 * math.cos(math.pi / 2 * (step + 1) / model.decoding_steps))
        hidden = [place for place in range(36) if codes[place] == model.num_codes]
        hidden.sort(key=lambda place: -best.values[place].item())
        for place in hidden[: max(1, len(hidden) - left) if step < model.decoding_steps - 1 else None]:
            codes[place] = best.indices[place].item()
    return codes


def drawn(family, model, prompts, seeds, guidance_scale, temperature):
    """Codes (B, T) and log-probabilities (B,) of the sampler, and those (B, T) that the likelihood has for the same codes: of Show-o
    in the order in which they were drawn."""
    codes, log_probs = model.sample_images(prompts, seeds, guidance_scale, temperature)
    if family != "showo":
        return codes, log_probs, model.image_log_probs(prompts, codes)
    order = model.samples(prompts, seeds, guidance_scale, temperature).order
    return codes, log_probs, model.image_log_probs(prompts, codes, order)
