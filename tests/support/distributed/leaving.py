"""How a process of a test ends."""

from __future__ import annotations

import os
import sys

import torch.distributed as dist


def leave() -> None:
    """End this process as soon as the others have come here too, and take nothing down.

    The last to let go of a gloo process group waits for gloo's thread while it holds Python's lock, which that thread
    may want to let go of a tensor: both were seen to wait for ever. So nobody lets go.
    """
    if dist.is_initialized():
        dist.barrier()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
