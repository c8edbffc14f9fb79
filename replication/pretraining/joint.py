"""Joint pre-training of an embedded model: text-to-image beside captioning and yes/no questions, in every step."""

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from tqdm import tqdm

from replication.files import atomic_file
from replication.models.worded import WordedModel
from replication.pretraining.data import IGNORED, QuestionWriter, Understanding, text_to_image_pairs
from replication.scenes.grammar import LONGEST_PROMPT


def generation_loss(
    unified: WordedModel,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    codes: torch.Tensor,
    learnt: torch.Tensor,
) -> torch.Tensor:
    """Mean cross-entropy of image codes (B, T) after left-padded prompts, as `training_codes` gives them."""
    logits = unified.drawn_logits(input_ids, attention_mask, codes)
    return F.cross_entropy(logits.flatten(0, 1), learnt.flatten(), ignore_index=IGNORED)


def understanding_loss(
    unified: WordedModel, batch: Understanding, yes: int, no: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean cross-entropy of the caption tokens, and of the yes/no answers, each read in its own segment."""
    features = unified.embed_images(batch.pixel_values)
    embeddings = unified.model.get_input_embeddings()(batch.input_ids)
    before, after = batch.image_start, batch.image_start + features.shape[1]
    embeddings = torch.cat([embeddings[:, :before], features, embeddings[:, after:]], dim=1)
    hidden = unified.language_model(
        inputs_embeds=embeddings, attention_mask=batch.attention, position_ids=batch.position_ids, use_cache=False
    ).last_hidden_state
    labels = batch.labels.flatten()
    losses = F.cross_entropy(
        unified.model.lm_head(hidden).flatten(0, 1), labels, reduction="none", ignore_index=IGNORED
    )
    answers = (labels == yes) | (labels == no)
    captions = (labels != IGNORED) & ~answers
    return (losses * captions).sum() / captions.sum(), (losses * answers).sum() / answers.sum()


def train_jointly(
    unified: WordedModel,
    seed: int,
    steps: int,
    batch_size: int,
    understanding_batch_size: int,
    learning_rate: float,
    weight_decay: float,
    warmup_steps: int,
    image_loss_weight: float,
    text_to_image_examples: int,
    caption_noise: float,
    condition_dropout: float,
    near_misses_from_step: int,
    progress_folder: Path,
    checkpoint_every: int = 500,
    compiled: bool = True,
) -> None:
    """Train everything but the VQ tokenizer in place; resumes from `progress_folder` after a stop.

    False statements go from random ones to (nine tenths) near misses over the first `near_misses_from_step` steps.
    The learning rate warms up, stays, and falls linearly in the last fifth. Each step's batch is a function of
    (seed, step), so that an interrupted run goes on as if it had not been.

    Raises:
        ValueError: the loss is not finite.
    """
    model = unified.model
    captions, codes = text_to_image_pairs(unified, text_to_image_examples, caption_noise, seed)
    writer = QuestionWriter(unified)
    longest = LONGEST_PROMPT + len(unified.generation_ids([""])[0])
    unified.vqmodel.requires_grad_(False)
    unified.adopt_codebook()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, betas=(0.9, 0.95), weight_decay=weight_decay)
    image_loss_of = torch.compile(generation_loss) if compiled else generation_loss
    text_losses_of = torch.compile(understanding_loss) if compiled else understanding_loss
    model.train()
    unified.vqmodel.eval()  # or else batches would change what it remembers of pictures
    first = _resume(model, optimizer, progress_folder)
    progress = tqdm(range(first, steps), initial=first, total=steps, desc="pre-training", unit="step", mininterval=5)
    for step in progress:
        rng = np.random.default_rng((seed, 3, step))
        rows = rng.integers(len(captions), size=batch_size)
        input_ids, attention_mask = unified.generation_inputs(
            [captions[row] for row in rows], padding="max_length", max_length=longest
        )
        dropped = torch.from_numpy(rng.random(batch_size) < condition_dropout)
        input_ids = torch.where(dropped[:, None], unified.unconditional_ids(input_ids), input_ids)
        batch = writer.batch(understanding_batch_size, min(0.9, step / near_misses_from_step), rng)
        image_loss = image_loss_of(unified, input_ids, attention_mask, *unified.training_codes(codes[rows], rng))
        caption_loss, answer_loss = text_losses_of(unified, batch, writer.yes, writer.no)
        loss = image_loss_weight * image_loss + caption_loss + answer_loss
        if not torch.isfinite(loss):
            raise ValueError(f"pre-training diverged at step {step} (loss {loss.item()}); lower learning_rate")
        schedule = min(1.0, (step + 1) / warmup_steps, (steps - step) / (0.2 * steps))
        optimizer.param_groups[0]["lr"] = learning_rate * schedule
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if step % 20 == 0:
            progress.set_postfix(
                image=f"{image_loss.item():.3f}",
                caption=f"{caption_loss.item():.3f}",
                answer=f"{answer_loss.item():.3f}",
            )
        if (step + 1) % checkpoint_every == 0:
            _checkpoint(model, optimizer, progress_folder)
    model.eval()


def _checkpoint(model, optimizer, folder: Path) -> None:
    state = {f"model.{name}": tensor.clone() for name, tensor in model.state_dict().items()}
    for index, values in optimizer.state_dict()["state"].items():
        state |= {f"optimizer.{index}.{key}": tensor.clone() for key, tensor in values.items()}
    with atomic_file(folder / "state.safetensors") as partial:
        save_file(state, partial)


def _resume(model, optimizer, folder: Path) -> int:
    path = folder / "state.safetensors"
    if not path.exists():
        return 0
    state = load_file(path)
    model.load_state_dict({name[6:]: tensor for name, tensor in state.items() if name.startswith("model.")})
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in state.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".")
            moments.setdefault(int(index), {})[key] = tensor
    step = int(moments[0]["step"].item())
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": moments, "param_groups": groups})
    return step
