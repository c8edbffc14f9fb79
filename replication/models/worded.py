"""What unified models share that are a checkpoint of a language model and an image tokenizer, asked in words: loading, wordings,
pixels, verdicts and captions. How an image is drawn, and how it is read, a family says.
"""

from abc import abstractmethod

import torch
from safetensors import SafetensorError
from torch.nn.functional import log_softmax
from torch.nn.utils.rnn import pad_sequence

from replication.models.checkpoint_checks import ADVICE, check_memory, check_tokenizer, weight_bytes
from replication.models.interface import UnifiedModel
from replication.sampling import compile_for_inference, position_ids

DECODED_AT_ONCE = (
    32  # images; more only spill the processor's caches, and 32 pictures of 384 x 384 fit beside a 7B model
)
ASKED_MULTIPLE = 8  # lengths of questions when compiled, so that few are, and little of them is padding
WORDING = ("caption", "turn", "request", "answer_lead")


def at_least_single(values):
    """`values` in float32, or in the precision that they have where it is higher."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def distinct(texts):
    """The different ones of `texts` in their order, and for each of `texts` its place among them."""
    places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
    return list(places), [places[text] for text in texts]


class WordedModel(UnifiedModel):
    """A checkpoint and the wordings by which it is asked.

    question: asked about an image, with `{prompt}` in it (paper 1.1 and 1.2). caption: asks for the prompt of an image.
    turn: how the model is asked, with `{image}` and `{question}` in it. request: how it is asked for an image, with `{prompt}`.
    answer_lead: how an answer begins, before one of the tokens `accept` and `reject`.
    The defaults are those of the embedded models. The wordings are complete: no chat template and no default system prompt
    is added to them.
    compiled: decode through torch.compile.

    A family sets `name`, its classes of transformers, the settings that it reads beside the wordings, and the text that
    begins every input.
    """

    name = model_class = processor_class = None
    settings = ()
    begin = ""

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
        self._paint, self._read, self._padding = self.paint, self._hidden_states, {}
        if compiled:
            self._paint, self._read = (compile_for_inference(step, model.device) for step in (self._paint, self._read))
            self._padding = {"pad_to_multiple_of": ASKED_MULTIPLE}

    @property
    @abstractmethod
    def language_model(self):
        """The module that both branches share, from embeddings to last hidden states."""

    @property
    def vqmodel(self):
        """The image tokenizer, a module."""
        return self.model.model.vqmodel

    @property
    @abstractmethod
    def num_codes(self):
        """How many image codes there are."""

    @property
    @abstractmethod
    def codes_per_image(self):
        """T, the number of codes of an image that is drawn."""

    @property
    @abstractmethod
    def codebook(self):
        """The vectors of the codes, (V, C): a parameter of the image tokenizer, or fixed, where it requires no gradient."""

    @abstractmethod
    def drawn_logits(self, input_ids, attention_mask, codes):
        """Logits (B, T, V) of every code of `codes` (B, T) after left-padded requests, for the losses of pre-training."""

    def training_codes(self, codes, rng):
        """What is read and what is learnt of codes (B, T) in a step of pre-training: two tensors (B, T); -100 is not learnt."""
        return codes, codes

    @abstractmethod
    def drawing_request(self, text):
        """`text` as a request for an image, up to where the codes begin."""

    @abstractmethod
    def unconditional_ids(self, input_ids):
        """`input_ids` of requests with padding in place of what they ask for: what guidance takes for no prompt."""

    def seen_at_once(self, input_ids):
        """Which of `input_ids` (B, L) see one another, whatever their order; none where all is read from left to right."""
        return torch.zeros_like(input_ids, dtype=torch.bool)

    @property
    def image_token_id(self):
        """The id that stands for what is seen of an image in the text of a question."""
        return self.processor.tokenizer.image_token_id

    @abstractmethod
    def image_text(self, images):
        """How each of `images`, all of one size, is written in a question."""

    @property
    def pixel_dtype(self):
        """The precision in which images are read."""
        return self.model.dtype

    @abstractmethod
    def image_size(self, height, width):
        """Height and width that the processor gives an image of this size."""

    @abstractmethod
    def embed_images(self, pixel_values):
        """What the language model reads in place of the image tokens of a question: (B, N, hidden)."""

    @abstractmethod
    def paint(self, codes):
        """Normalised pixels (B, H, W, 3) of codes (B, T)."""

    @abstractmethod
    def image_latents(self, pixel_values):
        """What the image tokenizer looks up in its codebook: (B, C, rows, columns)."""

    @abstractmethod
    def encode_pixels(self, pixel_values):
        """Codes (B, T) of normalised pixels (B, 3, H, W)."""

    @abstractmethod
    def paint_latents(self, vectors):
        """Normalised pixels (B, 3, H, W) of codebook vectors (B, C, rows, columns), differentiable."""

    def adopt_codebook(self):
        """Begin pre-training with what the image tokenizer knows of its codes; nothing where codes are words like others."""

    @classmethod
    def load(cls, path, config):
        """Read a checkpoint folder; nothing is downloaded.

        config: the configuration of the model: the wordings, of which `WORDING` may be left out where the embedded models'
            are meant, the family's `settings`, `device`, `dtype`, `compile`, and what is not needed here, such as `name`.
        Raises SystemExit with one sentence when the checkpoint is missing, damaged or incomplete, or there is no GPU where
        one is asked for, or one with too little memory for the weights.
        """
        if config["device"] == "cuda" and not torch.cuda.is_available():
            raise SystemExit("model.device is cuda, but torch sees no GPU here; ask for one, or set model.device=cpu.")
        try:
            needed = weight_bytes(path, config["dtype"])
            if config["device"] == "cuda":
                check_memory(path, needed, torch.cuda.mem_get_info()[0])
            model, loading = cls.model_class.from_pretrained(
                path, dtype=config["dtype"], output_loading_info=True, local_files_only=True
            )
            processor = cls.processor_class.from_pretrained(path, local_files_only=True)
        except (OSError, ValueError, SafetensorError) as error:
            reason = str(error).splitlines()[0]
            raise SystemExit(f"{path} is not a readable {cls.name} checkpoint, {ADVICE}: {reason}") from error
        if loading["missing_keys"]:
            missing = len(loading["missing_keys"])
            raise SystemExit(
                f"{path} is not a complete {cls.name} checkpoint, {ADVICE}: {missing} weights are missing."
            )
        wording = {key: config[key] for key in ("question", "accept", "reject", *cls.settings)}
        wording |= {key: config[key] for key in WORDING if key in config}
        try:
            unified = cls(model.to(config["device"]).eval(), processor, **wording, compiled=config["compile"])
        except ValueError as error:
            raise SystemExit(f"{path} and the configuration of the model do not fit: {error}") from error
        check_tokenizer(path, processor.tokenizer, unified.begin, f"{config['accept']} {config['reject']}")
        return unified

    def save(self, path):
        self.model.save_pretrained(path)
        self.processor.save_pretrained(path)

    @torch.no_grad()
    def decode_images(self, codes):
        image_processor = self.processor.image_processor
        std, mean = torch.tensor(image_processor.image_std), torch.tensor(image_processor.image_mean)
        images = []
        for batch in codes.split(DECODED_AT_ONCE):
            pixels = self._paint(batch.to(self.model.device)).float().cpu() * std + mean
            images.append((pixels / image_processor.rescale_factor).clamp(0, 255).to(torch.uint8))
        return torch.cat(images).numpy()

    def alignment_logits(self, images, prompts):
        input_ids, attention_mask = self._questions(images, prompts, **self._padding)
        lead = self.lead_ids.to(input_ids.device).expand(len(input_ids), -1)
        asked = torch.cat([input_ids, lead], dim=1), torch.cat([attention_mask, torch.ones_like(lead)], dim=1)
        last = at_least_single(self._read(self.pixel_values(images), *asked)[:, -1])
        head, answers = self.model.lm_head, [self.accept_id, self.reject_id]
        accept, reject = at_least_single(head.weight[answers])
        log_ratio = last @ (accept - reject)
        return (
            log_ratio
            if head.bias is None
            else log_ratio + at_least_single(head.bias[answers]) @ log_ratio.new_tensor([1, -1])
        )

    def prompt_log_probs(self, images, prompts):
        tokenizer = self.processor.tokenizer
        request_ids, request_mask = self._tokenize([self.ask(images, self.caption)] * len(prompts))
        captions = [
            torch.tensor([*ids, tokenizer.eos_token_id], device=self.model.device)
            for ids in tokenizer([f" {prompt}" for prompt in prompts], add_special_tokens=False)["input_ids"]
        ]
        labels = pad_sequence(captions, batch_first=True, padding_value=tokenizer.pad_token_id)
        lengths = torch.tensor([len(caption) for caption in captions], device=self.model.device)
        is_caption = torch.arange(labels.shape[1], device=self.model.device) < lengths[:, None]
        hidden_states = self._hidden_states(
            self.pixel_values(images),
            torch.cat([request_ids, labels], dim=1),
            torch.cat([request_mask, is_caption.long()], dim=1),
        )[:, -labels.shape[1] - 1 : -1]
        log_probs = log_softmax(at_least_single(self.model.lm_head(hidden_states)), dim=-1)
        return (log_probs.gather(2, labels[..., None])[..., 0] * is_caption).sum(dim=1)

    @torch.no_grad()
    def prompt_features(self, prompts):
        input_ids, attention_mask = self._tokenize([f"{self.begin}{prompt}" for prompt in prompts])
        hidden_states = self.language_model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids(attention_mask),
            use_cache=False,
        ).last_hidden_state
        read = attention_mask[..., None].float()
        return (hidden_states.float() * read).sum(dim=1) / read.sum(dim=1)

    def generation_inputs(self, prompts, **padding):
        """Token ids and attention mask (B, L) of requests for images, up to where the codes begin."""
        return self._tokenize(
            [self.drawing_request(self.request.format(prompt=prompt)) for prompt in prompts], **padding
        )

    def generation_ids(self, prompts):
        """Token ids of each prompt as the generation branch reads it, up to the first code: one list per prompt."""
        input_ids, attention_mask = self.generation_inputs(prompts)
        return [ids[mask.bool()].tolist() for ids, mask in zip(input_ids, attention_mask, strict=True)]

    def pixel_values(self, images):
        """Normalised pixels (B, 3, H, W) of images (B, h, w, 3) uint8; images that need no resizing are handled as one
        tensor, with the processor's own result."""
        image_processor = self.processor.image_processor
        if images.shape[1:3] != self.image_size(*images.shape[1:3]):
            pixels = image_processor(list(images), return_tensors="pt")["pixel_values"]
        else:
            pixels = torch.tensor(images).permute(0, 3, 1, 2) * image_processor.rescale_factor
            mean, std = torch.tensor(image_processor.image_mean), torch.tensor(image_processor.image_std)
            pixels = (pixels - mean[:, None, None]) / std[:, None, None]
        return pixels.to(self.model.device, self.pixel_dtype)

    def ask(self, images, question):
        """The text of a question about each of `images`, all of one size."""
        return self.begin + self.turn.format(image=self.image_text(images), question=question)

    def _answer_ids(self, lead, *answers):
        """Ids of `lead` as it is written before an answer, and the id of each answer after it."""
        tokenizer = self.processor.tokenizer
        written = [tokenizer.encode(lead + answer, add_special_tokens=False) for answer in answers]
        for answer, ids in zip(answers, written, strict=True):
            if ids[:-1] != written[-1][:-1] or ids[-1] == tokenizer.unk_token_id or (not lead and len(ids) != 1):
                raise ValueError(f"The answer {answer!r} must be one token of the model's vocabulary.")
        return torch.tensor(written[0][:-1], dtype=torch.long), *(ids[-1] for ids in written)

    def _questions(self, images, prompts, **padding):
        return self._tokenize([self.ask(images, self.question.format(prompt=prompt)) for prompt in prompts], **padding)

    def _tokenize(self, text, **padding):
        padding = {"padding": True, **padding}
        unique, rows = distinct(text)
        inputs = self.processor.tokenizer(unique, padding_side="left", return_tensors="pt", **padding)
        return inputs["input_ids"][rows].to(self.model.device), inputs["attention_mask"][rows].to(self.model.device)

    @abstractmethod
    def _hidden_states(self, pixel_values, input_ids, attention_mask):
        """Last hidden states (B, L, hidden) of questions about images."""
