"""Lets accelerate spread weights over processes of a CPU, which torch can and accelerate offers for GPUs alone.

Python imports it at the start of each process whose PYTHONPATH names this folder.
"""

import os

if "LOCAL_RANK" in os.environ:
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedType

    initialise = AcceleratorState.__init__

    def with_fsdp(self, *arguments, fsdp_plugin=None, **others):
        initialise(self, *arguments, fsdp_plugin=fsdp_plugin, **others)
        self.distributed_type = DistributedType.FSDP
        if fsdp_plugin is not None:
            self.fsdp_plugin = fsdp_plugin

    AcceleratorState.__init__ = with_fsdp
