"""Outputs appear whole or not at all: write to a temporary name beside the target, then rename."""

import shutil
from contextlib import contextmanager
from pathlib import Path

DISK_FULL = ("No space left on device", "Disk quota exceeded", "requested and")  # the last is numpy's short write


@contextmanager
def atomic_file(path):
    """Yield a temporary `Path` beside `path`; it is renamed to `path` when the block succeeds, removed otherwise.

    The suffix of `path` is kept, so writers that choose a format by suffix work. Raises SystemExit with one sentence
    when the disk is full.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".partial.{path.name}")
    with _explain_full_disk(path, partial):
        yield partial
        partial.replace(path)


@contextmanager
def atomic_directory(path):
    """Yield a temporary empty folder beside `path`; it takes the place of `path` when the block succeeds.

    Raises SystemExit with one sentence when the disk is full.
    """
    path = Path(path)
    partial = path.with_name(f".partial.{path.name}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    with _explain_full_disk(path, partial):
        yield partial
        if path.exists():
            shutil.rmtree(path)
        partial.rename(path)


@contextmanager
def _explain_full_disk(path, partial):
    try:
        yield
    except Exception as error:
        if any(text in str(error) for text in DISK_FULL):
            raise SystemExit(
                f"The disk is full: {path} could not be written; free some space and run again."
            ) from error
        raise
    finally:
        if partial.is_dir():
            shutil.rmtree(partial)
        partial.unlink(missing_ok=True)
