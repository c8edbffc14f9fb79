"""The station `replication.post_training` with weights in parts on processes without a GPU, for test_fsdp.py.

accelerate 1.15 takes FSDP for a matter of GPUs alone: `AcceleratorState` asks for it after `MULTI_GPU` and its like, not after
`MULTI_CPU`, and copies the model to every process instead. PyTorch has no such limit, so this says what a GPU would; all else is
accelerate's, transformers' and TRL's own.
"""

from accelerate import DistributedType, state

from replication.post_training import main

without_parts = state.AcceleratorState.__init__


def with_parts(self, *args, fsdp_plugin=None, **kwargs):
    without_parts(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
    if fsdp_plugin is not None:
        if self._mixed_precision != "no":
            fsdp_plugin.set_mixed_precision(self._mixed_precision)
        self.fsdp_plugin = fsdp_plugin
        self.distributed_type = state.PartialState._shared_state["distributed_type"] = DistributedType.FSDP


state.AcceleratorState.__init__ = with_parts
main()
