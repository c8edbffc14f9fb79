"""What unified models share that draw an image code by code; a family says in what its checkpoints differ.

An image is read as rows of codes. After `row_length` of them a family may read one token that is not drawn: the end of a row.
"""

from abc import abstractmethod

import torch
from torch.nn.functional import log_softmax, pad

from replication.models.worded import WordedModel, at_least_single, distinct
from replication.sampling import ImageSampler, places_of_codes, position_ids


class AutoregressiveModel(WordedModel):
    """A `WordedModel` whose language model predicts every code from those before.

    compiled: sample, too, through torch.compile (`ImageSampler`).
    """

    def __init__(self, *checkpoint, compiled=False, **wording):
        super().__init__(*checkpoint, compiled=compiled, **wording)
        self.sampler = ImageSampler(self, compiled)

    @property
    def row_length(self):
        """Codes between two ends of rows; all of them where rows do not end."""
        return self.codes_per_image

    @abstractmethod
    def code_table(self):
        """What the language model reads of each code, (V, hidden); one more row is the end of a row."""

    @abstractmethod
    def embed_drawn(self, codes):
        """What is read while the codes (B, T) are drawn, all but the last, with the ends of rows between them: (B, S,
        hidden)."""

    @abstractmethod
    def code_logits(self, hidden_states):
        """Logits of the next code, (..., V), of last hidden states."""

    @abstractmethod
    def drawing_text(self):
        """The text after a request for an image; its last token predicts the first code."""

    @abstractmethod
    def reading(self, pixel_values, input_ids):
        """The inputs of the model that reads `input_ids` with their images."""

    def write(self, **arguments):
        """Token ids of a text, by transformers' own `generate`."""
        return self.model.generate(**arguments)

    def sample_images(self, prompts, seeds, guidance_scale, temperature):
        unique, rows = distinct(prompts)
        input_ids, attention_mask = self.generation_inputs(unique)
        samples = self.sampler.sample(
            input_ids,
            self.unconditional_ids(input_ids),
            attention_mask,
            rows,
            seeds,
            guidance_scale,
            temperature,
        )
        return samples.codes, samples.log_probs

    @torch.no_grad()
    def written_answers(self, images, prompts, max_new_tokens):
        input_ids, attention_mask = self._questions(images, prompts)
        return self.greedy_texts(
            max_new_tokens, **self.reading(self.pixel_values(images), input_ids), attention_mask=attention_mask
        )

    def greedy_texts(self, max_new_tokens, input_ids, **inputs):
        """The greedy continuations of `input_ids` (B, L), as a list of strings."""
        written = self.write(input_ids=input_ids, **inputs, do_sample=False, max_new_tokens=max_new_tokens)
        return self.processor.tokenizer.batch_decode(written[:, input_ids.shape[1] :], skip_special_tokens=True)

    def image_log_probs(self, prompts, codes):
        codes = codes.to(self.model.device)
        log_probs = log_softmax(at_least_single(self.drawn_logits(*self.generation_inputs(prompts), codes)), dim=-1)
        return log_probs.gather(2, codes[..., None])[..., 0]

    def drawn_logits(self, input_ids, attention_mask, codes):
        """Logits (B, T, V) of every code of `codes` (B, T) after left-padded prompts, teacher forced."""
        drawn = self.embed_drawn(codes)
        attention_mask = pad(attention_mask, (0, drawn.shape[1]), value=1)
        hidden_states = self.language_model(
            inputs_embeds=torch.cat([self.model.get_input_embeddings()(input_ids), drawn], dim=1),
            attention_mask=attention_mask,
            position_ids=position_ids(attention_mask),
            use_cache=False,
        ).last_hidden_state[:, input_ids.shape[1] - 1 :]
        return self.code_logits(hidden_states[:, places_of_codes(codes.shape[1], self.row_length)])

    def drawing_request(self, text):
        return f"{self.begin}{text}{self.drawing_text()}"

    def unconditional_ids(self, input_ids):
        """`input_ids` of prompts with padding in place of all between begin-of-sequence and begin-of-image: what guidance
        takes for no prompt."""
        tokenizer = self.processor.tokenizer
        drawing = (input_ids == tokenizer.boi_token_id).cumsum(dim=1) > 0
        return torch.where(drawing | (input_ids == tokenizer.bos_token_id), input_ids, tokenizer.pad_token_id)

    def _hidden_states(self, pixel_values, input_ids, attention_mask):
        return self.model.model(
            **self.reading(pixel_values, input_ids),
            attention_mask=attention_mask,
            position_ids=position_ids(attention_mask),
            use_cache=False,
        ).last_hidden_state
