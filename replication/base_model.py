"""Station 0: the base model, either the shipped one, verified, or pre-trained from scratch.

python -m replication.base_model --config JSON --base 0 --output FOLDER
"""

import argparse
import hashlib
import json
import shutil
from pathlib import Path

from replication.files import atomic_directory

SHIPPED = Path(__file__).parents[1] / "base_models"


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def verify(folder: Path, sums: Path) -> None:
    """Check every file of `folder` against a SHA256SUMS file that lists it as ``<folder name>/<file>``.

    Raises:
        SystemExit: a file is missing, unlisted or differs; the sentence names it.
    """
    listed = {name: digest for digest, name in (line.split() for line in sums.read_text().splitlines())}
    expected = {name for name in listed if name.startswith(f"{folder.name}/")}
    if not expected:
        raise SystemExit(f"there is no shipped base model {folder}; choose one listed in {sums}")
    for name in sorted(expected):
        path = folder.parent / name
        if not path.exists() or sha256(path) != listed[name]:
            raise SystemExit(
                f"{path} is missing or damaged (its SHA-256 is not the one in {sums}); "
                "restore it with `git checkout base_models`, or pre-train with `--config base=scratch`"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=json.loads, required=True)
    parser.add_argument("--base", type=int, required=True)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    if args.config["source"] == "shipped":
        folder = SHIPPED / args.config["name"] / f"base={args.base}"
        verify(folder, folder.parent / "SHA256SUMS")
        with atomic_directory(args.output) as partial:
            shutil.copytree(folder, partial, dirs_exist_ok=True)
    else:
        from replication.pretraining.run import pretrain

        pretrain(args.config["pretraining"], args.base, args.output)


if __name__ == "__main__":
    main()
