"""Between the decoupled and the shared-token family: a Janus that sees an image as the codes that it would draw, through their own
embeddings and aligner, in place of a vision encoder."""

from transformers import JanusForConditionalGeneration
from transformers import JanusModel as JanusBody
from transformers.modeling_outputs import BaseModelOutputWithPooling

from replication.models.janus import JanusModel


class CodeReadingBody(JanusBody):
    """`vision_model` and `aligner` are there, as the configuration asks for them, and are read by nothing."""

    def get_image_features(self, pixel_values, **kwargs):
        codes = self.vqmodel.encode(pixel_values).image_tokens.view(len(pixel_values), -1)
        return BaseModelOutputWithPooling(pooler_output=self.generation_aligner(self.generation_embeddings(codes)))


class CodeReadingJanus(JanusForConditionalGeneration):
    def __init__(self, config):
        super().__init__(config)
        self.model = CodeReadingBody(config)
        self.post_init()


class JanusCodesModel(JanusModel):
    """A Janus checkpoint that was pre-trained to see codes; another one would see what it never learnt to read."""

    name, model_class = "Janus reading codes", CodeReadingJanus
