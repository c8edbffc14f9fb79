"""The station `replication.post_training` with weights in parts on processes without a GPU, for test_fsdp.py.

accelerate 1.15 takes FSDP for a matter of GPUs alone: `AcceleratorState` asks for it after `MULTI_GPU` and its like, not after
`MULTI_CPU`, and copies the model to every process instead. PyTorch has no such limit, so this says what a GPU would; all else is
accelerate's, transformers' and TRL's own.
"""

import time
from pathlib import Path

from accelerate import DistributedType, state
from transformers import Trainer

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
save_rng_state = Trainer._save_rng_state


def save_rng_state_slowly(self, output_dir):
    """The second process takes its time over its own part of a checkpoint, as on a slow disk, and may be killed in between."""
    if self.args.process_index == 1:
        (Path(output_dir) / "rng_state_1.pth").touch()
        time.sleep(0.3)
    save_rng_state(self, output_dir)


Trainer._save_rng_state = save_rng_state_slowly
main()
