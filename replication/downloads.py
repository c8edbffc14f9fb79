"""Station: the files of the public prompt benchmarks, at pinned commits and verified by checksum (paper section 3).

python -m replication.downloads --config JSON --output FOLDER
"""

import argparse
import hashlib
import http.client
import json
import time
import urllib.error
import urllib.request
from pathlib import Path

from replication.files import atomic_directory

ATTEMPTS = 4
FIRST_WAIT = 2  # seconds; doubled after every attempt
TIMEOUT = 30  # seconds


def fetch(address):
    """The bytes at an address. Faults of the network or the server are tried again, with growing waits.

    Raises SystemExit with one sentence when there is no such file, or none came in `ATTEMPTS` attempts.
    """
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(FIRST_WAIT * 2 ** (attempt - 1))
        try:
            with urllib.request.urlopen(address, timeout=TIMEOUT) as answer:
                return answer.read()
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code != 429:
                raise SystemExit(
                    f"{address} cannot be had: {error}; check the commit and path in configs/prompts."
                ) from error
            reason = error
        except (OSError, http.client.HTTPException) as error:
            reason = error
    raise SystemExit(
        f"{address} could not be downloaded in {ATTEMPTS} attempts ({reason}); run again when there is a network, or put the "
        "files into a folder and give it as prompts.mirror."
    )


def read_mirror(path):
    """The bytes of a file of a local mirror. Raises SystemExit when it is missing."""
    if not path.is_file():
        raise SystemExit(
            f"{path} is missing in the folder prompts.mirror; add it, or set prompts.mirror=null to download it."
        )
    return path.read_bytes()


def verify(content, expected, name):
    """Raises SystemExit unless `content` has the SHA-256 `expected`."""
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise SystemExit(
            f"{name} has the SHA-256 {found} and not {expected} as in configs/prompts; it is damaged or another version: run "
            "again, or check the commit and the mirror."
        )


def download(config, output):
    """Write `output`/<benchmark>/<file> for every file in config["benchmarks"], all of them or none.

    config: `benchmarks`, {name: {repository, commit, folder, sha256: {file: checksum}}}; `address` with these places in it,
    and `mirror`, a folder of such folders that is read instead, or None.
    Raises SystemExit as `fetch`, `read_mirror` and `verify` do.
    """
    with atomic_directory(output) as partial:
        for name, benchmark in config["benchmarks"].items():
            (partial / name).mkdir()
            for file, expected in benchmark["sha256"].items():
                if config["mirror"]:
                    content = read_mirror(Path(config["mirror"]) / name / file)
                else:
                    content = fetch(config["address"].format(path=f"{benchmark['folder']}/{file}", **benchmark))
                verify(content, expected, f"{name}/{file}")
                (partial / name / file).write_bytes(content)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=json.loads, required=True)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    download(arguments.config, arguments.output)


if __name__ == "__main__":
    main()
