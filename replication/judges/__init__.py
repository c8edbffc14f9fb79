"""Who says whether an image shows its prompt.

The oracle reads pictures of the embedded world (`oracle.judge`). All others are a `replication.judges.interface.Judge`, of which
`panel` asks each about the images of its subtasks.
"""
