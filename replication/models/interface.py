"""What every unified model offers: the only thing that the stations know about a backbone."""

from abc import ABC, abstractmethod

from replication.classes import find_class


def load_model(path, config):
    """The unified model in the checkpoint folder `path`.

    config: a file of configs/model; its `class` is the full name of a `UnifiedModel`, which reads the rest.
    Raises SystemExit with one sentence when there is no such class, or no such checkpoint.
    """
    return find_class(config["class"]).load(path, config)


class UnifiedModel(ABC):
    """One model with a generation branch pi(x | y) and an understanding branch pi(a | x, question(y)) (paper section 2).

    B is the batch, T the number of codes of an image. Prompts are strings, images uint8 arrays (B, H, W, 3).
    Batching and padding change no result beyond rounding.
    """

    @classmethod
    @abstractmethod
    def load(cls, path, config):
        """Read a checkpoint in evaluation mode; `config` holds the wordings of the backbone. Raises SystemExit with one
        sentence when the checkpoint is missing or damaged."""

    @abstractmethod
    def save(self, path):
        """Write a checkpoint that `load` reads."""

    @abstractmethod
    def sample_images(self, prompts, seeds, guidance_scale, temperature):
        """One image per prompt and seed: codes (B, T) int64 and log pi(x | y) (B,), without guidance at temperature 1; of a
        family that draws codes in no fixed order, in the order in which they were drawn.

        The image of a seed is the same alone, in any batch and in any order. Prompts may repeat.
        """

    @abstractmethod
    def decode_images(self, codes):
        """Images (B, H, W, 3) uint8 numpy of codes (B, T)."""

    @abstractmethod
    def alignment_logits(self, images, prompts):
        """log pi(accept | x, question(y)) - log pi(reject | x, question(y)), (B,), differentiable.

        The verdict of the model on an image (paper section 1.2) is whether this exceeds a threshold.
        """

    @abstractmethod
    def written_answers(self, images, prompts, max_new_tokens):
        """The model's greedy answers to question(y) about each image, as a list of strings (paper section 1.3)."""

    def answer(self, images, question, max_new_tokens):
        """The model's greedy answer to any question about a list of images of any sizes, as a string: what the target
        `understanding` asks for, and nothing else."""
        raise SystemExit(f"{type(self).__name__} has no method `answer`, by which a harness would ask it questions.")

    @abstractmethod
    def image_log_probs(self, prompts, codes):
        """log pi(x_t | x_<t, y) of every code, (B, T): teacher forced, differentiable, no guidance. A family without a fixed
        order gives each code what comes before it in one that the prompt names."""

    @abstractmethod
    def prompt_log_probs(self, images, prompts):
        """log pi(y | x) of the prompt as a caption of the image, (B,), differentiable: the understanding branch in the
        paper's theory of learning dynamics."""

    @abstractmethod
    def image_policy(self, trained_modules):
        """The generation branch as a causal language model over a joint vocabulary, a PreTrainedModel for TRL that shares
        its parameters with this model. Only parameters that match `trained_modules` are trainable. Its method
        `prompt_ids(prompts)` gives the prompts as lists of ids; completions are image codes as they are."""

    @abstractmethod
    def image_features(self, images):
        """What the vision encoder sees, (B, D): the mean over an image's patches, to measure how alike images are."""

    @abstractmethod
    def prompt_features(self, prompts):
        """What the language model reads, (B, D): the mean of its last hidden states over a prompt, to measure how alike
        prompts are."""
