"""Station 0 at the paper's scale: released weights from the model hub, at a pinned commit.

python -m replication.hub --config JSON --downloads FOLDER --output FOLDER
"""

import argparse
import json
import os
import re
import shutil
import time
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from replication.files import atomic_directory
from replication.models.checkpoint_checks import damaged_weights

ATTEMPTS = 4
FIRST_WAIT = 5  # seconds; doubled after every attempt
PATTERNS = [
    "*.json",
    "*.txt",
    "*.jinja",
    "*.safetensors",
]  # configurations, vocabularies, chat templates and weights; no pickles


def check_revision(repository, revision):
    """Raises SystemExit unless `revision` is a whole commit hash: a branch such as main moves."""
    if not re.fullmatch(r"[0-9a-f]{40}", str(revision)):
        raise SystemExit(
            f"The revision of {repository} is {revision!r}, but must be a commit, 40 hexadecimal digits; `python -c "
            f"\"from huggingface_hub import model_info; print(model_info('{repository}').sha)\"` prints the newest, and "
            "--config 'overrides=[\"model.revision=...\"]' sets that of the base model, and model.parts.NAME.revision that of a part."
        )


def fetch(repository, revision, folder, files=PATTERNS):
    """Download the `files` of a snapshot into `folder`; what an earlier call left there is gone on from.

    Raises SystemExit with one sentence when the repository or commit does not exist or asks for a licence to be accepted, when
    there is no network, or when a file arrived damaged.
    """
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(FIRST_WAIT * 2 ** (attempt - 1))
        try:
            snapshot_download(repository, revision=revision, local_dir=folder, allow_patterns=files)
            break
        except GatedRepoError as error:
            raise SystemExit(
                f"{repository} is gated: accept its licence on the hub, log in with `hf auth login`, and run again."
            ) from error
        except RevisionNotFoundError as error:
            raise SystemExit(f"{repository} has no commit {revision}; correct its revision in configs.") from error
        except RepositoryNotFoundError as error:
            raise SystemExit(f"The hub has no public model {repository}; correct its name in configs.") from error
        except (HTTPError, OSError) as error:
            reason = str(error).splitlines()[0]
    else:
        raise SystemExit(
            f"{repository} could not be downloaded in {ATTEMPTS} attempts ({reason}); run again when there is a network "
            f"and HF_HUB_OFFLINE is not set, and it goes on from what is in {folder}."
        )


def check_weights(folder):
    """Raises SystemExit when a file of weights is cut off, which is deleted, so that a rerun repairs it, and when there is none:
    what is downloaded whole has none that are read here."""
    damaged = damaged_weights(folder)
    if not any(folder.glob("*.safetensors*")):
        raise SystemExit(
            f"There is no model.safetensors in {folder}, and nothing here reads a pickle; name a commit that has one as revision."
        )
    for path in damaged:
        path.unlink(missing_ok=True)
    if damaged:
        names = ", ".join(path.name for path in damaged)
        raise SystemExit(f"{names} did not arrive whole in {folder}; run again, and it is downloaded anew.")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=json.loads, required=True, help="canonical JSON of the base_model section")
    parser.add_argument("--downloads", type=Path, required=True, help="folder that keeps what an interrupted call had")
    parser.add_argument(
        "--output", type=Path, required=True, help="folder of the checkpoint, of hard links to the downloads"
    )
    arguments = parser.parse_args()
    repository, revision = arguments.config["repository"], arguments.config["revision"]
    parts = arguments.config.get("parts", {})  # judges have none
    for place in (arguments.config, *parts.values()):
        check_revision(place["repository"], place["revision"])
    folder = arguments.downloads / f"{arguments.config['name']}@{revision}"
    fetch(repository, revision, folder)
    check_weights(folder)
    for name, part in parts.items():
        fetch(part["repository"], part["revision"], folder / name, part["files"])
        if "*.safetensors" in part["files"]:
            check_weights(folder / name)
    with atomic_directory(arguments.output) as partial:
        shutil.copytree(
            folder, partial, dirs_exist_ok=True, copy_function=os.link, ignore=shutil.ignore_patterns(".cache")
        )


if __name__ == "__main__":
    main()
