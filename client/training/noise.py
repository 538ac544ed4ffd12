"""Randomness that nobody outside can know: an AES-256-CTR key stream, keyed by the operating system.

No seed from a job, a message or torch's generators reaches it, so that no one who knows those can take the noise off
again. Gaussians are Box and Muller's, from uniforms of 53 bits, and each is half the sum of four: the attack on the
floating-point rounding of a Gaussian (Mironov 2012; Jin et al. 2022, arXiv:2112.05307) then has 2^159 cases to search
(Holohan and Braghin 2021, arXiv:2107.10138, section 5.1; Opacus does the same in its secure mode).
"""

from __future__ import annotations

import math
import os

import numpy as np
import numpy.typing as npt
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from torch import Tensor

_BLOCK = 2**15  # Gaussians at a time: what they pass through stays in the processor's cache
_SUMMANDS = 4


class Stream:
    """An endless stream of random numbers; every new one is independent of every other.

    Args:
        key: 32 bytes, for tests of the arithmetic only; otherwise from the operating system.
    """

    def __init__(self, key: bytes | None = None) -> None:
        cipher = Cipher(algorithms.AES256(key or os.urandom(32)), modes.CTR(bytes(16)))
        self._encryptor = cipher.encryptor()

    def random(self, size: int) -> npt.NDArray[np.float64]:
        """This many independent uniform numbers of 53 bits, 0 ≤ u < 1."""
        words = np.frombuffer(self._encryptor.update(bytes(8 * size)), np.uint64)
        uniform: npt.NDArray[np.float64] = (words >> np.uint64(11)).astype(np.float64)
        uniform *= 2.0**-53
        return uniform

    def normal(self, size: int) -> Tensor:
        """This many independent standard Gaussians, float64, on the processor."""
        result = torch.empty(size, dtype=torch.float64)
        for start in range(0, size, _BLOCK):
            part = result[start : start + _BLOCK]
            part.copy_(self._block(max(2, len(part)))[: len(part)])
        return result

    def _block(self, size: int) -> Tensor:
        pairs = _SUMMANDS // 2 * size
        uniform = torch.from_numpy(self.random(2 * pairs))
        radius = uniform[:pairs].neg_().log1p_().mul_(-2).sqrt_()
        angle = uniform[pairs:].mul_(2 * math.pi)
        cosines = angle.cos().mul_(radius).view(-1, size)
        sines = angle.sin_().mul_(radius).view(-1, size)
        # Cosine and sine of one pair go to different sums: the four summands of each have nothing in common.
        return (cosines.sum(0) + sines.sum(0).roll(1)) / math.sqrt(_SUMMANDS)
