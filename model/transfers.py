"""Arrays of the host -> tensors on a device, queued like any other work: the host never waits for the copy."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def to_device(values: np.ndarray | Tensor | Sequence[int], device: torch.device) -> Tensor:
    """The values on `device`; on a CPU a tensor over the array itself, nothing is copied.

    Out of ordinary memory a copy to a GPU would wait until everything queued before it is done. Pinned memory may be
    dropped at once: torch's allocator hands it out again only after the copy.
    """
    host = torch.as_tensor(values)
    return host.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else host.to(device)
