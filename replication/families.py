"""Families of unified models side by side: whose runs are whose, and how figures and tables call and colour them.

A model is called <family>-<number of its base model>, its family as the file of configs/model.
"""

import pandas as pd

from replication.results import read_metrics
from replication.style import label

NAMES = {
    "embedded_janus": "Janus-like",
    "embedded_janus_codes": "Janus-like, sees codes",
    "embedded_emu3": "Emu3-like",
    "embedded_showo": "Show-o-like",
}
PAPER_MODELS = {
    "embedded_emu3": None,
    "embedded_janus_codes": None,
    "embedded_showo": "show_o",
    "showo_512": "show_o",
    "emu3_gen": None,
    "janus_pro_1b": None,
}  # of its Tables 1, 5 and 6
COLORS = (
    "#4D4D4D",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#D55E00",
)  # Okabe and Ito's, in the order of their names


def family_of(models):
    """The families of a series of models."""
    return models.str.rpartition("-")[0]


def family_label(name):
    """Readable name of a family, or of one of its models."""
    return NAMES.get(name, label(name))


def read_families(files):
    """`read_metrics` of the runs of one or several families, in the order of `files`."""
    families = family_of(pd.Series([pd.read_csv(file, nrows=1)["model"].item() for file in files]))
    frames = [read_metrics(own) for _, own in pd.Series(files).groupby(families, sort=False)]
    return pd.concat(frames, ignore_index=True)


def by_family(metrics):
    """{family: its rows}, sorted by name."""
    return dict(iter(metrics.groupby(family_of(metrics["model"]))))


def pooled_by_family(metrics):
    """`metrics` with the families as models where there are several; as they are where there is one."""
    families = family_of(metrics["model"])
    return metrics.assign(model=families) if families.nunique() > 1 else metrics
