"""The embedded model of the Janus that sees codes: configuration, words and first weights of the embedded Janus."""

from replication.models import tiny
from replication.models.janus_codes import CodeReadingJanus, JanusCodesModel

new_processor = tiny.new_processor


def new_model(seed: int) -> CodeReadingJanus:
    """With random weights, as `tiny.new_model` draws them; the vision encoder, which nothing reads, is not trained."""
    janus = tiny.new_model(seed)
    model = CodeReadingJanus(janus.config)
    model.load_state_dict(janus.state_dict())
    model.generation_config = janus.generation_config
    for unread in (model.model.vision_model, model.model.aligner):
        unread.requires_grad_(False)
    return model


def new_unified(seed: int, wording: dict) -> JanusCodesModel:
    """The embedded model with random weights and the wordings of configs/model."""
    return JanusCodesModel(new_model(seed), new_processor(), **wording)
