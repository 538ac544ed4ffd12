"""What each patient adds to the gradient of one parameter: as it is, or as two factors that were not multiplied.

A large layer that sees few positions, as the last ones of a classifier do, has gradients that are much larger than what
they are made of. Clipping needs only their norms and one weighted sum, and both are had from the factors: with a
patient's gradient LᵀR, its squared norm is Σ (LLᵀ ∘ RRᵀ) ("ghost norm": Li et al. 2021, arXiv:2110.05679, section 4),
and the sum of all of them, each times its number c, is (cL)ᵀR over all patients' positions at once (book-keeping:
Bu et al. 2022, arXiv:2210.00038). No gradient of a single patient is ever made.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Share(Protocol):
    """The shares of P patients in the gradient of one parameter."""

    def squares(self) -> Tensor:
        """Squared norms, float64 (P,)."""

    def weighted(self, factors: Tensor) -> Tensor:
        """Their sum, each times its factor (P,), in the parameter's shape."""

    def of(self, kept: Tensor) -> Share:
        """Those of some patients only: kept is bool (P,)."""

    def rows(self) -> Rows:
        """The same, multiplied out."""

    @property
    def nbytes(self) -> int:
        """What they take of memory."""


@dataclass(frozen=True)
class Rows:
    """Shares as they are.

    Attributes:
        values: (P, *shape of the parameter).
    """

    values: Tensor

    def squares(self) -> Tensor:
        """See `Share`."""
        # Added up in double precision, one patient at a time: in single, a sum over millions comes out too small.
        rows = self.values.flatten(1)
        return torch.stack([torch.linalg.vector_norm(row, dtype=torch.float64) ** 2 for row in rows])

    def weighted(self, factors: Tensor) -> Tensor:
        """See `Share`."""
        return (factors.to(self.values) @ self.values.flatten(1)).view(self.values.shape[1:])

    def of(self, kept: Tensor) -> Rows:
        """See `Share`."""
        return Rows(self.values[kept])

    def rows(self) -> Rows:
        """See `Share`."""
        return self

    @property
    def nbytes(self) -> int:
        """See `Share`."""
        return self.values.nbytes


@dataclass(frozen=True)
class Factors:
    """Shares that are LᵀR, summed over the positions of a patient's images.

    Attributes:
        left: (N, p), of every position of every image, patient after patient.
        right: (N, d).
        counts: of each patient how many of the N positions are theirs.
        shape: of the parameter, p × d numbers in this order.
    """

    left: Tensor
    right: Tensor
    counts: tuple[int, ...]
    shape: torch.Size

    def squares(self) -> Tensor:
        """See `Share`; in double precision, and with what rounding may add to `weighted`, which is in single.

        Where L and R are large and their product small, the norm without that would promise too little.
        """
        rounding = math.sqrt(len(self.left)) * torch.finfo(self.left.dtype).eps
        found = []
        for left, right in self._stacks(torch.float64):
            lefts, rights = left @ left.mT, right @ right.mT
            norm = (lefts * rights).sum((1, 2)).clamp(min=0).sqrt()
            lengths = (_traces(lefts) * _traces(rights)).sqrt()
            found.append((norm + rounding * lengths) ** 2)
        return torch.cat(found)

    def weighted(self, factors: Tensor) -> Tensor:
        """See `Share`."""
        return ((self._of_positions(factors)[:, None].to(self.left) * self.left).mT @ self.right).view(self.shape)

    def of(self, kept: Tensor) -> Factors:
        """See `Share`."""
        positions = self._of_positions(kept)
        counts = tuple(count for count, stays in zip(self.counts, kept.tolist(), strict=True) if stays)
        return Factors(self.left[positions], self.right[positions], counts, self.shape)

    def rows(self) -> Rows:
        """See `Share`."""
        values = torch.cat([left.mT @ right for left, right in self._stacks(self.left.dtype)])
        return Rows(values.view(-1, *self.shape))

    @property
    def nbytes(self) -> int:
        """See `Share`."""
        return self.left.nbytes + self.right.nbytes

    def _of_positions(self, of_patients: Tensor) -> Tensor:
        counts = torch.tensor(self.counts, dtype=torch.int64, device=of_patients.device)
        return of_patients.repeat_interleave(counts, output_size=len(self.left))

    def _stacks(self, dtype: torch.dtype) -> list[tuple[Tensor, Tensor]]:
        """(P, positions, p) and (P, positions, d) of all patients; or, where they differ, of one after another."""
        left, right, counts = self.left.to(dtype), self.right.to(dtype), self.counts
        if len(set(counts)) <= 1:
            return [(left.view(len(counts), -1, left.shape[1]), right.view(len(counts), -1, right.shape[1]))]
        pairs = zip(torch.split(left, [*counts]), torch.split(right, [*counts]), strict=True)
        return [(one[None], other[None]) for one, other in pairs]


def _traces(matrices: Tensor) -> Tensor:
    return matrices.diagonal(dim1=1, dim2=2).sum(1)
