"""The precision a job asks for in the forward and backward pass."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch import Tensor

from shared.job import Training


def asked(training: Training, device: torch.device) -> AbstractContextManager[None]:
    """While it is on, convolutions and products of matrices are computed in the job's precision (autocast)."""
    return torch.autocast(device.type, torch.bfloat16, enabled=training.precision == "bfloat16")


def of_products(tensor: Tensor) -> Tensor:
    """The tensor in the precision in which it is multiplied here and now."""
    kind = tensor.device.type
    return tensor.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else tensor


def of_group_norms(tensor: Tensor) -> Tensor:
    """The tensor in the precision in which autocast normalises groups: on a GPU single, on a processor its own."""
    return of_sums(tensor) if tensor.is_cuda else tensor


def of_sums(tensor: Tensor) -> Tensor:
    """The tensor in the precision in which many numbers are added up: single, or double if it is."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
