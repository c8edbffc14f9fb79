"""The exact judge of the embedded world: pixels -> scene -> does the prompt hold."""

from replication.scenes import oracle


def judge(images, prompts):
    """Whether each image (n, 24, 24, 3) uint8 shows its prompt: (n,) bool. Raises ValueError for a prompt outside the
    grammar."""
    return oracle.judge(images, list(prompts))


def scores(images, rows):
    """`judge` as the call that all judges offer: (n,) float for images with the prompts of the frame `rows`."""
    return judge(images, rows["prompt"]).astype(float)
