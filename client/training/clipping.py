"""From each patient's gradient to the noised sum that the job's optimiser steps with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from opacus.optimizers import DPOptimizer
from torch import Tensor, nn
from torch.optim import Optimizer

from client.training.noise import Stream
from client.training.noting import Shares
from client.training.shares import Rows, Share

_TOO_LONG = 2.0**100  # times the clipping norm
_SHORTER = 1 - 2.0**-20
_SMALL = 2**12  # numbers; parameters below it are clipped together, as they are many and each takes its time


def clipped_sum(shares: Sequence[Share], norm: float) -> list[Tensor]:
    """Each patient's gradient times min(1, C / (its norm + 1e-6)), as Opacus does, added up.

    A patient whose gradient is not finite, or so long that a factor in single precision cannot make it short, counts as
    zero, rather than spoil the sum. What is made shorter is made shorter by a little more than it has to be, by more
    than rounding can make it longer.

    Args:
        shares: of each parameter, of one patient or more.
        norm: C.

    Returns:
        Of each parameter one tensor in its shape.
    """
    small = [n for n, share in enumerate(shares) if isinstance(share, Rows) and share.values[0].numel() < _SMALL]
    large = [n for n in range(len(shares)) if n not in set(small)]
    together = [shares[n].rows().values for n in small]
    pieces = [shares[n] for n in large]
    if together:
        pieces.append(Rows(torch.cat([values.flatten(1) for values in together], dim=1)))
    squares = torch.stack([piece.squares() for piece in pieces]).sum(0)
    finite = squares < (norm * _TOO_LONG) ** 2  # what is not a number is not
    if not finite.all():
        squares, pieces = squares[finite], [piece.of(finite) for piece in pieces]
    factors = norm / (squares.sqrt() + 1e-6)
    factors = torch.where(factors < 1, factors * _SHORTER, torch.ones_like(factors))
    sums = [piece.weighted(factors) for piece in pieces]
    if together:
        shapes = [values.shape[1:] for values in together]
        parts = torch.split(sums.pop(), [shape.numel() for shape in shapes])
        sums += [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]
    return [sums[place] for place in torch.tensor([*large, *small]).argsort().tolist()]


class PatientOptimizer(DPOptimizer):  # type: ignore[misc]
    """Opacus's optimiser, fed with one gradient a patient and with noise from our own stream.

    Opacus's keeps the order: clip and add up, add noise, scale, let the optimiser step, forget. What it does in each is
    ours here, because it clips gradients that are all there as tensors (see `shares`) and draws from torch's generator.

    Args:
        optimizer: what the noised gradient is handed to.
        noise_multiplier: σ.
        max_grad_norm: C.
        expected_batch_size: the public divisor.
        stream: where the noise comes from.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        noise_multiplier: float,
        max_grad_norm: float,
        expected_batch_size: int,
        stream: Stream,
    ) -> None:
        super().__init__(
            optimizer,
            noise_multiplier=noise_multiplier,
            max_grad_norm=max_grad_norm,
            expected_batch_size=expected_batch_size,
        )
        self._stream = stream
        self._taken: Sequence[Share] = ()

    def take(self, parameters: Mapping[str, nn.Parameter], shares: Shares) -> None:
        """Clip some patients' gradients and add them to the step's sum; or raise, and leave the sum as it was.

        Args:
            parameters: that train, by name, in the order of the optimiser.
            shares: of each of them.
        """
        self._taken = [shares[name] for name in parameters]
        try:
            self.clip_and_accumulate()
        finally:
            self._taken = ()

    @property
    def grad_samples(self) -> list[nn.Parameter]:
        """What Opacus looks at to see whether there is anything to step with."""
        return list(self.params)

    def clip_and_accumulate(self) -> None:
        """Add the clipped gradients of those taken to the step's sum."""
        if not self._taken:  # the step itself, which comes when all has been added
            return
        for parameter, part in zip(self.params, clipped_sum(self._taken, self.max_grad_norm), strict=True):
            parameter.summed_grad = part if parameter.summed_grad is None else parameter.summed_grad.add_(part)

    def add_noise(self) -> None:
        """Noise on the sum, which where nobody was taken is noise alone."""
        for parameter in self.params:
            parameter.grad = torch.zeros_like(parameter) if parameter.summed_grad is None else parameter.summed_grad
            self._stream.add_to(parameter.grad, self.noise_multiplier * self.max_grad_norm)

    def scale_grad(self) -> None:
        """Divide by the public divisor; Opacus counts accumulated batches as well, for each parameter: here is one."""
        torch._foreach_div_([parameter.grad for parameter in self.params], self.expected_batch_size)

    def release(self) -> None:
        """Leave nothing of any patient with the parameters."""
        for parameter in self.params:
            parameter.grad = None
            for name in ("grad_sample", "summed_grad"):
                if hasattr(parameter, name):
                    delattr(parameter, name)
