"""Where the phases of a curriculum run begin and end: read by the workflow, which draws them as rules (paper Algorithm 2)."""

from itertools import pairwise

NOT_READ = {"corruption": "none", "corruption_strength": None, "threshold": None}  # values of supervision


def check_settings(experiment, supervision, origin, candidates, shared, orthogonal_to):
    """Raises SystemExit with one sentence where a curriculum sets what its phases do not read: it judges by its own verdicts,
    starts from the pre-trained model, and draws as `baseline` (whose candidates section is `shared`) does, perhaps fewer.
    """
    ignored = [f"supervision.{key}" for key, value in NOT_READ.items() if supervision[key] != value]
    ignored += ["origin.starts_from"] if origin["starts_from"] != "baseline" else []
    differing = [key for key in shared if candidates[key] != shared[key]]
    ignored += [f"candidates.{key}" for key in differing if key != "candidates_per_prompt"]
    ignored += ["post_training.orthogonal_to"] if orthogonal_to else []
    if ignored:
        raise SystemExit(
            f"{experiment}: a curriculum (c_*) does not read {', '.join(ignored)}; leave them as they are."
        )


def phase_epochs(replay_at, epochs):
    """Epochs (first, last) of each phase of a run of `epochs` epochs.

    replay_at: shares of the training, each rounded to the end of an epoch, or "every": every end but the last.
    Raises SystemExit with one sentence when these are not different ends of epochs within the training.
    """
    ends = list(range(1, epochs)) if replay_at == "every" else [round(share * epochs) for share in replay_at]
    bounds = [0, *ends, epochs]
    if not ends or any(first >= last for first, last in pairwise(bounds)):
        raise SystemExit(
            f"schedule.replay_at={replay_at} does not cut {epochs} epochs into phases of at least one; "
            "give rising shares between 0 and 1, or more epochs."
        )
    return list(pairwise(bounds))


def is_current(schedule, role):
    """Whether schedule[role], "images_from" or "verdicts_from", is the current model and not the pre-trained one.

    Raises SystemExit with one sentence for any other value.
    """
    if schedule[role] not in ("current", "pretrained"):
        raise SystemExit(f"schedule.{role} is {schedule[role]!r}; choose current or pretrained.")
    return schedule[role] == "current"
