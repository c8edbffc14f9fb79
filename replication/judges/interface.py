"""What every judge of the panel offers (`replication.judges.panel`): its answers, how they are read, and what they depend on."""

import hashlib
from functools import cache

from replication.sources import ROOT, source_files


@cache
def code_behind(name):
    """Digest of a class's code: an answer to a question that is asked otherwise is another answer."""
    files = source_files(name.rpartition(".")[0])
    return hashlib.sha256(b"".join((ROOT / file).read_bytes() for file in files)).hexdigest()


class Judge:
    """A judge whose answers are numbers in [0, 1]; a subclass gives `answers(images, rows)`, a list of what JSON can keep, and may
    `read` them otherwise.

    images: (n, H, W, 3) uint8. rows: a frame with the columns prompt and metadata. config: its block of configs/judge, with name,
    class, batch_size, for one from the model hub repository and revision, and what else it needs.
    """

    def __init__(self, config):
        self.config = config

    @classmethod
    def load(cls, path, config):
        """path: folder of its download, or None where it names no repository."""
        return cls(config)

    @classmethod
    def check(cls, path, config):
        """Raises SystemExit where it cannot be loaded, as far as can be said at once, before hours are spent."""

    def identity(self):
        """All that its answers depend on: model, revision, precision, wording, thresholds and code, not place or batch."""
        kept = {key: value for key, value in self.config.items() if key not in ("name", "device", "batch_size")}
        return {**kept, "code": code_behind(self.config["class"])}

    def read(self, answers):
        return [float(answer) for answer in answers]

    def scores(self, images, rows):
        """(n,) list of scores of images (n, H, W, 3) uint8 with the frame `rows`."""
        return self.read(self.answers(images, rows))
