"""The unified-model interface on transformers' `JanusForConditionalGeneration`: the embedded model and Janus-Pro alike."""

import torch
from safetensors import SafetensorError
from torch.nn.functional import log_softmax, pad
from torch.nn.utils.rnn import pad_sequence
from transformers import JanusForConditionalGeneration, JanusProcessor

from replication.models.checkpoint_checks import ADVICE, check_memory, check_tokenizer, weight_bytes
from replication.models.image_policy import ImagePolicy
from replication.models.interface import UnifiedModel
from replication.sampling import ImageSampler, position_ids

DECODED_AT_ONCE = (
    32  # images; more only spill the processor's caches, and 32 pictures of 384 x 384 fit beside a 7B model
)
WORDING = ("caption", "turn", "request", "answer_lead")


def at_least_single(values):
    """`values` in float32, or in the precision that they have where it is higher."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


class JanusModel(UnifiedModel):
    """A Janus checkpoint and the wordings by which it is asked.

    question: asked about an image, with `{prompt}` in it (paper 1.1 and 1.2). caption: asks for the prompt of an image.
    turn: how the model is asked, with `{image}` and `{question}` in it. request: how it is asked for an image, with `{prompt}`.
    answer_lead: how an answer begins, before one of the tokens `accept` and `reject`.
    The defaults are those of the embedded model. The wordings are complete: no chat template and no default system prompt
    is added to them.
    compiled: sample and decode through torch.compile (`ImageSampler`).
    """

    def __init__(
        self,
        model,
        processor,
        question,
        accept,
        reject,
        caption="describe this image :",
        turn="{image} {question}",
        request="{prompt}",
        answer_lead="",
        compiled=False,
    ):
        if "{prompt}" not in question:
            raise ValueError(f"The question to the model must contain {{prompt}}, but it is {question!r}.")
        self.model, self.processor = model, processor
        self.question, self.caption, self.turn, self.request = question, caption, turn, request
        self.lead_ids, self.accept_id, self.reject_id = self._answer_ids(answer_lead, accept, reject)
        self.sampler = ImageSampler(model, compiled)
        decode = model.decode_image_tokens
        self._decode = torch.compile(decode, dynamic=False) if compiled else decode

    @classmethod
    def load(cls, path, config):
        """Read a checkpoint folder; nothing is downloaded.

        config: the configuration of the model: the wordings, of which `WORDING` may be left out where the embedded model's
            are meant, `device`, `dtype`, `compile`, and what is not needed here, such as `name`.
        Raises SystemExit with one sentence when the checkpoint is missing, damaged or incomplete, or there is no GPU where
        one is asked for, or one with too little memory for the weights.
        """
        if config["device"] == "cuda" and not torch.cuda.is_available():
            raise SystemExit("model.device is cuda, but torch sees no GPU here; ask for one, or set model.device=cpu.")
        try:
            needed = weight_bytes(path, config["dtype"])
            if config["device"] == "cuda":
                check_memory(path, needed, torch.cuda.mem_get_info()[0])
            model, loading = JanusForConditionalGeneration.from_pretrained(
                path, dtype=config["dtype"], output_loading_info=True, local_files_only=True
            )
            processor = JanusProcessor.from_pretrained(path, local_files_only=True)
        except (OSError, ValueError, SafetensorError) as error:
            reason = str(error).splitlines()[0]
            raise SystemExit(f"{path} is not a readable Janus checkpoint, {ADVICE}: {reason}") from error
        if loading["missing_keys"]:
            missing = len(loading["missing_keys"])
            raise SystemExit(f"{path} is not a complete Janus checkpoint, {ADVICE}: {missing} weights are missing.")
        wording = {key: config[key] for key in ("question", "accept", "reject")}
        wording |= {key: config[key] for key in WORDING if key in config}
        unified = cls(model.to(config["device"]).eval(), processor, **wording, compiled=config["compile"])
        check_tokenizer(path, processor.tokenizer, f"{config['accept']} {config['reject']}")
        return unified

    def save(self, path):
        self.model.save_pretrained(path)
        self.processor.save_pretrained(path)

    def sample_images(self, prompts, seeds, guidance_scale, temperature):
        unique = list(dict.fromkeys(prompts))
        input_ids, attention_mask = self._generation_inputs(unique)
        samples = self.sampler.sample(
            input_ids,
            self.unconditional_ids(input_ids),
            attention_mask,
            [unique.index(prompt) for prompt in prompts],
            seeds,
            guidance_scale,
            temperature,
        )
        return samples.codes, samples.log_probs

    @torch.no_grad()
    def decode_images(self, codes):
        image_processor = self.processor.image_processor
        std, mean = torch.tensor(image_processor.image_std), torch.tensor(image_processor.image_mean)
        images = []
        for batch in codes.split(DECODED_AT_ONCE):
            pixels = self._decode(batch.to(self.model.device)).float().cpu() * std + mean
            images.append((pixels / image_processor.rescale_factor).clamp(0, 255).to(torch.uint8))
        return torch.cat(images).numpy()

    def alignment_logits(self, images, prompts):
        input_ids, attention_mask = self._questions(prompts)
        lead = self.lead_ids.to(input_ids.device).expand(len(input_ids), -1)
        asked = torch.cat([input_ids, lead], dim=1), torch.cat([attention_mask, torch.ones_like(lead)], dim=1)
        last = at_least_single(self._hidden_states(images, *asked)[:, -1])
        accept, reject = at_least_single(self.model.lm_head.weight[[self.accept_id, self.reject_id]])
        return last @ (accept - reject)

    @torch.no_grad()
    def written_answers(self, images, prompts, max_new_tokens):
        return self._write(self._questions(prompts), self.pixel_values(images), max_new_tokens)

    @torch.no_grad()
    def answer(self, images, question, max_new_tokens):
        pixels = [self.pixel_values(image[None]) for image in images]
        asked = self._tokenize([self._ask(question, len(images))])
        return self._write(asked, torch.cat(pixels) if pixels else None, max_new_tokens)[0]

    def image_log_probs(self, prompts, codes):
        codes = codes.to(self.model.device)
        input_ids, attention_mask = self._generation_inputs(prompts)
        attention_mask = pad(attention_mask, (0, codes.shape[1] - 1), value=1)
        embeddings = torch.cat(
            [
                self.model.get_input_embeddings()(input_ids),
                self.model.prepare_embeddings_for_image_generation(codes[:, :-1]),
            ],
            dim=1,
        )
        hidden_states = self.model.model.language_model(
            inputs_embeds=embeddings,
            attention_mask=attention_mask,
            position_ids=position_ids(attention_mask),
            use_cache=False,
        ).last_hidden_state[:, -codes.shape[1] :]
        log_probs = log_softmax(at_least_single(self.model.model.generation_head(hidden_states)), dim=-1)
        return log_probs.gather(2, codes[..., None])[..., 0]

    def prompt_log_probs(self, images, prompts):
        tokenizer = self.processor.tokenizer
        request_ids, request_mask = self._tokenize([self._ask(self.caption)] * len(prompts))
        captions = [
            torch.tensor([*ids, tokenizer.eos_token_id], device=self.model.device)
            for ids in tokenizer([f" {prompt}" for prompt in prompts], add_special_tokens=False)["input_ids"]
        ]
        labels = pad_sequence(captions, batch_first=True, padding_value=tokenizer.pad_token_id)
        lengths = torch.tensor([len(caption) for caption in captions], device=self.model.device)
        is_caption = torch.arange(labels.shape[1], device=self.model.device) < lengths[:, None]
        hidden_states = self._hidden_states(
            images,
            torch.cat([request_ids, labels], dim=1),
            torch.cat([request_mask, is_caption.long()], dim=1),
        )[:, -labels.shape[1] - 1 : -1]
        log_probs = log_softmax(at_least_single(self.model.lm_head(hidden_states)), dim=-1)
        return (log_probs.gather(2, labels[..., None])[..., 0] * is_caption).sum(dim=1)

    def image_policy(self, trained_modules):
        return ImagePolicy(self, trained_modules)

    @torch.no_grad()
    def image_features(self, images):
        features = self.model.model.get_image_features(self.pixel_values(images), return_dict=True).pooler_output
        return features.float().mean(dim=1)

    @torch.no_grad()
    def prompt_features(self, prompts):
        input_ids, attention_mask = self._tokenize(list(prompts))
        hidden_states = self.model.model.language_model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids(attention_mask),
            use_cache=False,
        ).last_hidden_state
        read = attention_mask[..., None].float()
        return (hidden_states.float() * read).sum(dim=1) / read.sum(dim=1)

    def generation_ids(self, prompts):
        """Token ids of each prompt as the generation branch reads it, up to begin-of-image: one list per prompt."""
        input_ids, attention_mask = self._generation_inputs(prompts)
        return [ids[mask.bool()].tolist() for ids, mask in zip(input_ids, attention_mask, strict=True)]

    def unconditional_ids(self, input_ids):
        """`input_ids` of prompts with padding in place of all but begin-of-sequence and begin-of-image: what guidance takes
        for no prompt."""
        tokenizer = self.processor.tokenizer
        kept = (input_ids == tokenizer.bos_token_id) | (input_ids == tokenizer.boi_token_id)
        return torch.where(kept, input_ids, tokenizer.pad_token_id)

    def pixel_values(self, images):
        """Normalised pixels (B, 3, H, W) of images (B, h, w, 3) uint8; images that need no resizing are handled as one
        tensor, with the processor's own result."""
        image_processor = self.processor.image_processor
        size = (image_processor.size["height"], image_processor.size["width"])
        if images.shape[1:3] != size:
            pixels = image_processor(list(images), return_tensors="pt")["pixel_values"]
        else:
            pixels = torch.tensor(images).permute(0, 3, 1, 2) * image_processor.rescale_factor
            mean, std = torch.tensor(image_processor.image_mean), torch.tensor(image_processor.image_std)
            pixels = (pixels - mean[:, None, None]) / std[:, None, None]
        return pixels.to(self.model.device, self.model.dtype)

    def _answer_ids(self, lead, *answers):
        """Ids of `lead` as it is written before an answer, and the id of each answer after it."""
        tokenizer = self.processor.tokenizer
        written = [tokenizer.encode(lead + answer, add_special_tokens=False) for answer in answers]
        for answer, ids in zip(answers, written, strict=True):
            if ids[:-1] != written[-1][:-1] or ids[-1] == tokenizer.unk_token_id or (not lead and len(ids) != 1):
                raise ValueError(f"The answer {answer!r} must be one token of the model's vocabulary.")
        return torch.tensor(written[0][:-1], dtype=torch.long), *(ids[-1] for ids in written)

    def _ask(self, question, images=1):
        processor = self.processor
        image = processor.image_token * processor.num_image_tokens
        image = f"{processor.image_start_token}{image}{processor.image_end_token}"
        return self.turn.format(image="\n".join([image] * images), question=question)

    def _write(self, asked, pixel_values, max_new_tokens):
        input_ids, attention_mask = asked
        written = self.model.generate(
            input_ids=input_ids,
            attention_mask=attention_mask,
            pixel_values=pixel_values,
            generation_mode="text",
            do_sample=False,
            max_new_tokens=max_new_tokens,
        )
        return self.processor.tokenizer.batch_decode(written[:, input_ids.shape[1] :], skip_special_tokens=True)

    def _questions(self, prompts):
        return self._tokenize([self._ask(self.question.format(prompt=prompt)) for prompt in prompts])

    def _tokenize(self, text):
        inputs = self.processor.tokenizer(text, padding=True, padding_side="left", return_tensors="pt")
        return inputs["input_ids"].to(self.model.device), inputs["attention_mask"].to(self.model.device)

    def _generation_inputs(self, prompts):
        start = self.processor.image_start_token
        return self._tokenize([f"{self.request.format(prompt=prompt)}{start}" for prompt in prompts])

    def _hidden_states(self, images, input_ids, attention_mask):
        return self.model.model(
            input_ids=input_ids,
            pixel_values=self.pixel_values(images),
            attention_mask=attention_mask,
            position_ids=position_ids(attention_mask),
            use_cache=False,
        ).last_hidden_state
