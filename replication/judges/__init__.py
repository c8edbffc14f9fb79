"""Who says whether an image shows its prompt.

All judges offer the same call, `scores(images, rows) -> (n,) float`: 1 is right, 0 is wrong, nan an answer without a score.
rows is a frame with a column prompt and what else a judge reads. All but the oracle are a `replication.judges.interface.Judge`.
"""
