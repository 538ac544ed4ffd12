"""Randomness that nobody outside can know: an AES-256-CTR key stream, keyed by the operating system.

No seed from a job, a message or torch's generators reaches it, so that no one who knows those can take the noise off
again. Gaussians are Box and Muller's, of 63 bits for the radius and 64 for the angle. What their rounding to floating
point could tell (Mironov 2012; Jin et al. 2022, arXiv:2112.05307) is answered twice:

- each number is half the sum of four Gaussians that have nothing in common, as in Opacus's secure mode (Holohan and
  Braghin 2021, arXiv:2107.10138, section 5.1);
- a sum of gradients, once noised, is rounded to multiples of a power of two that no data move, of the size of `GRAIN`
  of the deviation. At every radius 2^40 angles hit a grain that is within reach, so that its probability is a true
  Gaussian's but for some 2^-40 of it; and the lowest bits, by which Haney et al. 2022 (arXiv:2207.13793) tell what was
  added up, are gone.

The same four Gaussians, with other signs, make four numbers (by a Hadamard matrix: it is orthogonal, and they are as
independent as of sixteen), at a quarter of the time. These are 2^14 numbers apart: who draws fewer from a stream never
has two of the same four; who draws more, rounds.
"""

from __future__ import annotations

import math
import os

import numpy as np
import numpy.typing as npt
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from torch import Tensor

GRAIN = 2.0**-7  # of the deviation; rounded to it, the noise has 0.0003 % more
_BLOCK = 2**17  # numbers at a time: few enough for the processor's cache, and enough to share among threads


class Stream:
    """An endless stream of random numbers; every new one is independent of every other.

    Args:
        key: 32 bytes, for tests of the arithmetic only; otherwise from the operating system.
    """

    def __init__(self, key: bytes | None = None) -> None:
        cipher = Cipher(algorithms.AES256(key or os.urandom(32)), modes.CTR(bytes(16)))
        self._encryptor = cipher.encryptor()
        self._left = torch.empty(0, dtype=torch.float64)

    def random(self, size: int) -> npt.NDArray[np.float64]:
        """This many independent uniform numbers of 53 bits, 0 ≤ u < 1."""
        words = np.frombuffer(self._encryptor.update(bytes(8 * size)), np.uint64)
        uniform: npt.NDArray[np.float64] = (words >> np.uint64(11)).astype(np.float64)
        uniform *= 2.0**-53
        return uniform

    def normal(self, size: int) -> Tensor:
        """This many independent standard Gaussians, float64, on the processor; the caller may write over them."""
        if len(self._left) < size:
            blocks = [self._block() for _ in range(math.ceil((size - len(self._left)) / _BLOCK))]
            self._left = torch.cat([self._left, *blocks]) if len(self._left) or len(blocks) > 1 else blocks[0]
        drawn, self._left = self._left[:size], self._left[size:]
        return drawn

    def add_to(self, values: Tensor, deviation: float) -> None:
        """Add Gaussian noise in double precision, in place, and round to multiples of 2^⌊log2(deviation × GRAIN)⌋.

        Args:
            values: contiguous, of any floating type and on any device.
            deviation: above 0.
        """
        grain = 2.0 ** math.floor(math.log2(deviation * GRAIN))
        values = values.view(-1)
        while len(values):
            size = min(len(values), len(self._left) or _BLOCK)  # no more than there is, which would be copied
            part, values = values[:size], values[size:]
            grains = self.normal(size).mul_(deviation / grain).to(part.device)
            part.copy_(grains.add_(part, alpha=1 / grain).round_()).mul_(grain)

    def _block(self) -> Tensor:
        """`_BLOCK` numbers, of which those at the same place of each quarter of each half share their Gaussians."""
        cosines, sines = (halves.view(2, 2, -1) for halves in self._halved_pairs(_BLOCK // 2))
        result = torch.empty((2, 4, _BLOCK // 8), dtype=torch.float64)
        # Cosine and sine of one pair are not to meet: their sum is one Gaussian, not two.
        for half, (first, second), (third, fourth) in zip(result, cosines, sines.unbind()[::-1], strict=True):
            plus, minus, more, less = first + second, first - second, third + fourth, third - fourth
            torch.add(plus, more, out=half[0])
            torch.sub(plus, more, out=half[1])
            torch.add(minus, less, out=half[2])
            torch.sub(minus, less, out=half[3])
        return result.view(-1)

    def _halved_pairs(self, count: int) -> tuple[Tensor, Tensor]:
        """Independent Gaussians of standard deviation ½, two times so many."""
        words = np.frombuffer(self._encryptor.update(bytes(16 * count)), np.int64).astype(np.float64)
        radius, angle = torch.split(torch.from_numpy(words), count)
        radius.abs_().add_(0.5).mul_(2.0**-63).log_().mul_(-0.5).sqrt_()  # √(-2 ln u) / 2; u is never 0
        angle.mul_(math.pi * 2.0**-63)
        return angle.cos().mul_(radius), angle.sin_().mul_(radius)
