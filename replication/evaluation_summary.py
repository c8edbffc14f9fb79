"""What an evaluation ends with, in one job or put together from shards: metrics and provenance."""

import pandas as pd

from replication import metrics
from replication.provenance import write_provenance


def write_summary(folder, own, probe, pretrained, config, seed, model, baseline):
    """Write metrics.csv and provenance.json of an evaluation to its `folder`.

    own, probe, pretrained: the frames of `metrics.summarise`. config: the evaluation section. model: the checkpoint folder.
    baseline: evaluation folder of the pre-trained model, or None where it is this one.
    """
    identity = {key: config[key] for key in ("preset", "experiment", "method")}
    identity |= {"model": _model_name(config, model, baseline), "seed": seed}
    table = metrics.summarise(own, probe, pretrained, identity, config["judge"]["name"])
    table.to_csv(folder / "metrics.csv", index=False)
    write_provenance(folder / "provenance.json", config, seed)


def _model_name(config, model, baseline):
    """`<name>-<base>`: the pre-trained model's folder is base=<base>; what was trained from it inherits its name."""
    if baseline:
        return pd.read_csv(baseline / "metrics.csv")["model"][0]
    return f"{config['model']['name']}-{model.name.removeprefix('base=')}"
