"""The stations that the rules call, each `python -m replication.STATION`, and what they share."""

import atexit
import gc

# Loading torch and transformers makes a million objects that stay. The collector would go through them again and again while they
# are loaded, and once more at the end: a quarter of what a station takes that has nothing to do.
gc.set_threshold(100_000, 10, 10)
atexit.register(gc.freeze)
