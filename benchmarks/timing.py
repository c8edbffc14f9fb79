"""One clock for everything that is measured."""

import time

import torch


def synchronised(work):
    """Seconds that `work` takes, and its result."""
    start = time.perf_counter()
    result = work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start, result
