"""Masked-diffusion family: Show-o (arXiv 2408.12528), the embedded model and the released one alike.

One vocabulary holds words and image codes, as in Emu3, but codes are not predicted from left to right: a code that is hidden, read
as a mask token, is predicted in its own place from all codes that are seen. Text is read causally; the tokens of an image, with
the marks around it, see one another and all before them. Padding is never seen, wherever it stands, and takes no position.

pi(x | y) is over image codes only, renormalised among them: the distribution that images are drawn from. Its logarithm is that of
one random order of the codes in `likelihood_steps` steps of the cosine schedule: each code is predicted once, given those of earlier
steps, and the sum over codes is the exact log-probability that decoding in this order draws the image. The order is a function
of the request alone, so policy and reference, and chosen and rejected images of a prompt, have the same one, and DPO begins
at ln 2. What this estimates and how well: docs/masked_likelihood.md.
"""

import torch
from torch.nn.functional import linear, log_softmax, pad
from transformers import DynamicCache
from transformers.modeling_outputs import BaseModelOutputWithPast

from replication.masked_sampling import ParallelSamples, hidden_counts, random_orders, sample_in_parallel
from replication.models.image_policy import CodeHead, ImageBackbone, ImagePolicy
from replication.models.showo_checkpoint import IMAGE, Showo, ShowoProcessor, square_pictures
from replication.models.worded import WordedModel, at_least_single, distinct
from replication.sampling import image_seed, position_ids

DRAWN_AT_ONCE = 32  # images; more only spill the processor's caches, and 32 pictures of 1,024 codes fill a GPU


class ShowoBackbone(ImageBackbone):
    """Features of joint ids with whole images: those of each code stand one place before it, where TRL looks for them."""

    def __init__(self, unified):
        super().__init__(unified.language_model, unified.num_codes)
        self.unified, self.generation_head = unified, CodeHead(unified.model.lm_head, unified.code_ids)

    @property
    def last_layer(self):
        return self.generation_head

    def forward(self, input_ids, attention_mask=None, position_ids=None, use_cache=False):
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        is_code = (input_ids < self.num_codes) & mask.bool()
        first = is_code.long().argmax(dim=1, keepdim=True)
        places = first + torch.arange(self.unified.codes_per_image, device=input_ids.device)
        lengths = (mask.bool() & ~is_code).sum(dim=1, keepdim=True)
        back = torch.arange(-int(lengths.max()), 0, device=input_ids.device)
        prompts = input_ids.gather(1, (first + back).clamp(min=0)) - self.num_codes
        prompt_mask = (-back <= lengths).long()
        prompts = prompts.where(prompt_mask.bool(), self.unified.pad_id)
        features = self.unified.states_in_order(prompts, prompt_mask, input_ids.gather(1, places))
        width = features.shape[2]
        states = features.new_zeros(*input_ids.shape, width)
        return BaseModelOutputWithPast(
            last_hidden_state=states.scatter(1, (places - 1)[..., None].expand(-1, -1, width), features)
        )


class ShowoModel(WordedModel):
    """A Show-o checkpoint.

    image_area: pixels of the square images that are drawn, and seen. decoding_steps: in how many steps an image is drawn.
    choice_noise: how much chance decides which draws stay; 0 keeps the most confident, a large one keeps any.
    likelihood_steps: in how many steps its likelihood is estimated.
    Raises ValueError when the vocabulary is not words, image codes and a mask token one after the other, or for more steps than
    codes.
    """

    name, model_class, processor_class = "Showo", Showo, ShowoProcessor
    settings = ("image_area", "decoding_steps", "choice_noise", "likelihood_steps")

    def __init__(
        self, model, processor, *wording, image_area, decoding_steps, choice_noise, likelihood_steps, **options
    ):
        self.side = round(image_area**0.5)
        self.decoding_steps, self.choice_noise, self.likelihood_steps = decoding_steps, choice_noise, likelihood_steps
        processor.image_processor = square_pictures(self.side)
        token_id = processor.tokenizer.convert_tokens_to_ids
        self.soi, self.eoi, self.t2i, self.mmu = map(token_id, ("<|soi|>", "<|eoi|>", "<|t2i|>", "<|mmu|>"))
        self.pad_id, self.first_code = processor.tokenizer.pad_token_id, token_id(IMAGE)
        if model.config["vocab_size"] != self.first_code + model.config["codebook_size"] + 1:
            raise ValueError("The vocabulary of the model is not its words, its image codes and one mask token.")
        super().__init__(model, processor, *wording, **options)
        for steps in (decoding_steps, likelihood_steps):
            hidden_counts(self.codes_per_image, steps)
        self.code_ids = slice(self.first_code, self.first_code + self.num_codes)

    @property
    def begin(self):
        return self.processor.tokenizer.bos_token

    @property
    def language_model(self):
        return self.model.showo.model

    @property
    def vqmodel(self):
        return self.model.vqmodel

    @property
    def pixel_dtype(self):
        return self.codebook.dtype

    @property
    def num_codes(self):
        return self.model.config["codebook_size"]

    @property
    def codes_per_image(self):
        return (self.side // self.vqmodel.patch_size) ** 2

    @property
    def image_token_id(self):
        return self.first_code

    @property
    def codebook(self):
        return self.vqmodel.quantize.embedding

    def drawing_request(self, text):
        return f"<|t2i|>{self.begin}{text}{self.processor.tokenizer.eos_token}<|soi|>"

    def image_text(self, images):
        return f"<|mmu|><|soi|>{IMAGE * self.codes_per_image}<|eoi|>"

    def ask(self, images, question):
        before, after = self.turn.split("{image}")
        return before + self.image_text(images) + self.begin + after.format(question=question)

    def image_size(self, height, width):
        return self.side, self.side

    def unconditional_ids(self, input_ids):
        tokenizer = self.processor.tokenizer
        kept = input_ids.new_tensor([self.t2i, tokenizer.bos_token_id, tokenizer.eos_token_id, self.soi])
        return torch.where(torch.isin(input_ids, kept), input_ids, self.pad_id)

    def seen_at_once(self, input_ids):
        """The tokens of an image and its marks; in a question, those before it, too."""
        begun = ((input_ids == self.soi) | (input_ids == self.mmu)).cumsum(dim=1) > 0
        ended = (input_ids == self.eoi).cumsum(dim=1) > 0
        return begun & ~(ended & (input_ids != self.eoi))

    def is_seen(self, input_ids, attention_mask):
        """Which tokens others may see, (B, L) bool: all but padding."""
        return attention_mask.bool() & (input_ids != self.pad_id)

    def read(self, input_ids, attention_mask, **options):
        """Last hidden states (B, L, hidden) of whole inputs."""
        real, together = self.is_seen(input_ids, attention_mask), self.seen_at_once(input_ids)
        causal = torch.ones(input_ids.shape[1], input_ids.shape[1], dtype=torch.bool, device=input_ids.device).tril()
        seen = (causal | (together[:, :, None] & together[:, None, :])) & real[:, None, :]
        seen = seen | torch.eye(
            len(causal), dtype=torch.bool, device=input_ids.device
        )  # padding sees something: itself
        return self.language_model(
            input_ids=input_ids,
            attention_mask=seen[:, None],
            position_ids=position_ids(real),
            **{"use_cache": False, **options},
        ).last_hidden_state

    def image_ids(self, before, codes):
        """Token ids of an image: what stands before it (B, L), codes (B, T), of which `num_codes` is a hidden one, and its end."""
        return torch.cat([before, codes + self.first_code, torch.full_like(codes[:, :1], self.eoi)], dim=1)

    def drawn_states(self, input_ids, attention_mask, codes):
        """Last hidden states (B, T, hidden) of codes (B, T), hidden or not, after left-padded requests."""
        attention_mask = pad(attention_mask, (0, codes.shape[1] + 1), value=1)
        return self.read(self.image_ids(input_ids, codes), attention_mask)[:, -codes.shape[1] - 1 : -1]

    def code_logits(self, hidden_states):
        head = self.model.lm_head
        return linear(hidden_states, head.weight[self.code_ids], head.bias[self.code_ids])

    def drawn_logits(self, input_ids, attention_mask, codes):
        return self.code_logits(self.drawn_states(input_ids, attention_mask, codes))

    def training_codes(self, codes, rng):
        """A random share of the codes is hidden and learnt, by the cosine schedule at a random time; at least one."""
        shares = torch.cos(torch.from_numpy(rng.random(len(codes))) * torch.pi / 2)
        numbers = (shares * codes.shape[1]).round().clamp(min=1)
        hidden = torch.from_numpy(rng.random(codes.shape)).argsort(dim=1).argsort(dim=1) < numbers[:, None]
        return codes.masked_fill(hidden, self.num_codes), codes.masked_fill(~hidden, -100)

    def orders(self, input_ids, attention_mask):
        """The random order (B, T) of each request: the step of `likelihood_steps` in which each code is predicted."""
        real = self.is_seen(input_ids, attention_mask)
        named = [" ".join(map(str, ids[kept].tolist())) for ids, kept in zip(input_ids, real, strict=True)]
        seeds = [image_seed(0, "order of likelihood", name, 0) for name in named]
        return random_orders(torch.tensor(seeds, device=input_ids.device), self.codes_per_image, self.likelihood_steps)

    def states_in_order(self, input_ids, attention_mask, codes, order=None):
        """Last hidden states (B, T, hidden) that predict each code given those of earlier steps: one reading per step.

        order: (B, T) the step of each code, by default that of `orders`.
        """
        order = self.orders(input_ids, attention_mask) if order is None else order
        steps = torch.arange(int(order.max()) + 1, device=codes.device)
        read = codes[:, None].masked_fill(order[:, None] >= steps[:, None], self.num_codes)
        inputs = (values.repeat_interleave(len(steps), dim=0) for values in (input_ids, attention_mask))
        states = self.drawn_states(*inputs, read.flatten(0, 1)).unflatten(0, read.shape[:2])
        return states.gather(1, order[:, None, :, None].expand(-1, 1, -1, states.shape[3]))[:, 0]

    def image_log_probs(self, prompts, codes, order=None):
        codes = codes.to(self.model.device)
        states = self.states_in_order(*self.generation_inputs(prompts), codes, order)
        log_probs = log_softmax(at_least_single(self.code_logits(states)), dim=-1)
        return log_probs.gather(2, codes[..., None])[..., 0]

    def sample_images(self, prompts, seeds, guidance_scale, temperature):
        samples = self.samples(prompts, seeds, guidance_scale, temperature)
        return samples.codes, samples.log_probs

    def samples(self, prompts, seeds, guidance_scale, temperature):
        """`ParallelSamples` of one image per prompt and seed."""
        parts = []
        for start in range(0, len(prompts), DRAWN_AT_ONCE):
            part = slice(start, start + DRAWN_AT_ONCE)
            unique, rows = distinct(prompts[part])
            requests = self.generation_inputs(unique)
            parts.append(sample_in_parallel(self, *requests, rows, seeds[part], guidance_scale, temperature))
        return ParallelSamples(*map(torch.cat, zip(*parts, strict=True)))

    @torch.no_grad()
    def written_answers(self, images, prompts, max_new_tokens):
        """As the interface says; words alone are written, where the public code could write image codes, too."""
        input_ids, attention_mask = self._questions(images, prompts)
        input_ids = self._with_codes(self.pixel_values(images), input_ids)
        cache = DynamicCache(config=self.language_model.config)
        states = self.read(input_ids, attention_mask, past_key_values=cache, use_cache=True)[:, -1:]
        seen = self.is_seen(input_ids, attention_mask)
        end, written = self.processor.tokenizer.eos_token_id, []
        ended = torch.zeros_like(input_ids[:, :1], dtype=torch.bool)
        for _ in range(max_new_tokens):
            token = self.model.lm_head(states)[..., : self.first_code].argmax(dim=-1).masked_fill(ended, end)
            written.append(token)
            ended = ended | (token == end)
            if ended.all():
                break
            seen = pad(seen, (0, 1), value=True)
            states = self.language_model(
                input_ids=token,
                attention_mask=seen[:, None, None],
                position_ids=position_ids(seen)[:, -1:],
                past_key_values=cache,
                use_cache=True,
            ).last_hidden_state
        return self.processor.tokenizer.batch_decode(torch.cat(written, dim=1), skip_special_tokens=True)

    def embed_images(self, pixel_values):
        return self.language_model.embed_tokens(self.encode_pixels(pixel_values) + self.first_code)

    def paint(self, codes):
        side = round(codes.shape[1] ** 0.5)
        return self.vqmodel.decode(codes.unflatten(1, (side, side))).permute(0, 2, 3, 1)

    def image_latents(self, pixel_values):
        return self.vqmodel.encoder(pixel_values)

    @torch.no_grad()
    def encode_pixels(self, pixel_values):
        return self.vqmodel.quantize(self.image_latents(pixel_values)).flatten(1)

    def paint_latents(self, vectors):
        return self.vqmodel.decoder(vectors)

    def image_policy(self, trained_modules):
        return ImagePolicy(self, ShowoBackbone(self), trained_modules)

    @torch.no_grad()
    def image_features(self, images):
        return self.embed_images(self.pixel_values(images)).float().mean(dim=1)

    def _with_codes(self, pixel_values, input_ids):
        """Token ids with the codes of images in place of what stands for them."""
        codes = self.encode_pixels(pixel_values) + self.first_code
        return input_ids.masked_scatter(input_ids == self.first_code, codes)

    def _hidden_states(self, pixel_values, input_ids, attention_mask):
        return self.read(self._with_codes(pixel_values, input_ids), attention_mask)
