"""Notes of each patient's share of the gradient, and which functions are replaced while they are taken.

While `Notes` are on, what PyTorch's own layers call (`F.conv2d`, `F.group_norm`, …) is replaced by `layers`, wherever
the parameters are the network's own and the input has one row an image; everything else stays as it is.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from client.training import layers
from client.training.drawing import Batch
from client.training.precision import of_group_norms, of_products, of_sums
from client.training.shares import Factors, Rows, Share

Shares = dict[str, Share]  # of each parameter, by name


class Notes(TorchFunctionMode):
    """While it is on, layers with parameters write down each patient's share of their gradients in the backward pass.

    Args:
        parameters: that train, by name.
        batch: whose images are whose.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], batch: Batch) -> None:
        super().__init__()
        self._parameters = {id(parameter): (name, parameter.shape) for name, parameter in parameters.items()}
        self._batch = batch
        self.images = len(batch.images)
        self.shares: Shares = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        rule = _RULES.get(func)
        if rule is not None:
            result = rule(self, *args, **(kwargs or {}))
            if result is not None:
                return result
        return func(*args, **(kwargs or {}))

    def concerns(self, image: Tensor, *parameters: Tensor | None) -> bool:
        """Whether a layer's input has one row an image, and its parameters are the network's own."""
        given = [parameter for parameter in parameters if parameter is not None]
        ours = [parameter for parameter in given if id(parameter) in self._parameters]
        frozen = [parameter for parameter in given if not parameter.requires_grad]
        return bool(ours) and len(ours) + len(frozen) == len(given) and image.shape[0] == self.images

    def is_one_row(self, tensor: Tensor) -> bool:
        """Whether it is a parameter whose first axis stands for the image."""
        return id(tensor) in self._parameters and tensor.ndim > 1 and tensor.shape[0] == 1

    def are_few(self, positions: int, left: int, right: int) -> bool:
        """Whether a gradient of left × right numbers, of so many positions an image, is better left as factors.

        Its norm from the factors takes positions² × (left + right) multiplications, in double precision and in small
        pieces, and the gradient itself positions × left × right: measured, they are even at four times as many.
        """
        return 4 * positions * max(self._batch.counts) * (left + right) <= left * right

    def add(self, parameter: int, gradients: Tensor) -> None:
        """Note the gradients (M, *shape) of a parameter, by its id."""
        gradients = of_sums(gradients)
        if not self._batch.one_image_each:
            sums = gradients.new_zeros((self._batch.patients, *gradients.shape[1:]))
            gradients = sums.index_add_(0, self._batch.owner, gradients)
        self._note(parameter, Rows(gradients))

    def add_product(self, parameter: int, left: Tensor, right: Tensor) -> None:
        """Note the gradients LᵀR of a parameter, by its id, L (M, positions, p) and R (M, positions, d)."""
        _, shape = self._parameters[parameter]
        positions = left.shape[1]
        if not self.are_few(positions, left.shape[2], right.shape[2]):
            self.add(parameter, (left.mT @ right).view(-1, *shape))
            return
        counts = tuple(positions * count for count in self._batch.counts)
        # Detached, or they would keep what the forward pass has kept.
        left, right = (of_sums(factor.detach()).flatten(0, 1) for factor in (left, right))
        self._note(parameter, Factors(left, right, counts, shape))

    def _note(self, parameter: int, share: Share) -> None:
        """A parameter used twice has both shares added."""
        name, _ = self._parameters[parameter]
        earlier = self.shares.get(name)
        self.shares[name] = share if earlier is None else Rows(earlier.rows().values + share.rows().values)


def _convolution(dimensions: int) -> Callable[..., Tensor | None]:
    def rule(
        notes: Notes,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Tensor | None:
        if isinstance(padding, str) or not notes.concerns(input, weight, bias):
            return None
        spread = [_each(value, dimensions) for value in (stride, padding, dilation)]
        image = of_products(input)
        return _apply(layers.Convolution, notes, image, weight, bias, (*spread, False, [0] * dimensions, groups))

    return rule


def _transposed(dimensions: int) -> Callable[..., Tensor | None]:
    def rule(
        notes: Notes,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        dilation: Any = 1,
    ) -> Tensor | None:
        if not notes.concerns(input, weight, bias):
            return None
        spread = [_each(value, dimensions) for value in (stride, padding, dilation)]
        geometry = (*spread, True, _each(output_padding, dimensions), groups)
        return _apply(layers.Convolution, notes, of_products(input), weight, bias, geometry)

    return rule


def _each(value: Any, dimensions: int) -> list[int]:
    return [value] * dimensions if isinstance(value, int) else list(itertools.islice(value, dimensions))


def _group_norm(
    notes: Notes,
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor | None:
    return (
        _apply(layers.GroupNorm, notes, of_group_norms(input), weight, bias, num_groups, eps)
        if notes.concerns(input, weight, bias)
        else None
    )


def _instance_norm(
    notes: Notes,
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor | None:
    if running_mean is not None or not use_input_stats or not notes.concerns(input, weight, bias):
        return None
    return _apply(layers.GroupNorm, notes, of_group_norms(input), weight, bias, input.shape[1], eps)


def _layer_norm(
    notes: Notes,
    input: Tensor,
    normalized_shape: Any,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor | None:
    if input.ndim <= len(normalized_shape) or not notes.concerns(input, weight, bias):
        return None
    return _apply(layers.LayerNorm, notes, of_sums(input), weight, bias, tuple(normalized_shape), eps)


def _linear(notes: Notes, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor | None:
    if input.ndim < 2 or not notes.concerns(input, weight, bias):
        return None
    return _apply(layers.Linear, notes, of_products(input), weight, bias)


def _prelu(notes: Notes, input: Tensor, weight: Tensor) -> Tensor | None:
    return _apply(layers.PReLU, notes, input, weight) if notes.concerns(input, weight) else None


def _add(notes: Notes, input: Tensor, other: Any, **scaled: Any) -> Tensor | None:
    if not isinstance(other, Tensor) or scaled or input.ndim != other.ndim:
        return None
    image, parameter = (other, input) if notes.is_one_row(input) else (input, other)
    if not notes.is_one_row(parameter) or image.shape[1:] != parameter.shape[1:] or len(image) != notes.images:
        return None
    return image + _apply(layers.ForEach, notes, parameter, tuple(image.shape))


def _expand(notes: Notes, input: Tensor, *sizes: Any) -> Tensor | None:
    wanted = tuple(sizes[0]) if len(sizes) == 1 and not isinstance(sizes[0], int) else tuple(sizes)
    if not notes.is_one_row(input) or len(wanted) != input.ndim or wanted[0] != notes.images:
        return None
    if any(size not in (-1, there) for size, there in zip(wanted[1:], input.shape[1:], strict=True)):
        return None
    return _apply(layers.ForEach, notes, input, (notes.images, *input.shape[1:]))


def _apply(layer: type[Function], *arguments: Any) -> Tensor:
    output: Tensor = layer.apply(*arguments)  # type: ignore[no-untyped-call]
    return output


_RULES: dict[Any, Callable[..., Tensor | None]] = {
    F.conv1d: _convolution(1),
    F.conv2d: _convolution(2),
    F.conv3d: _convolution(3),
    F.conv_transpose1d: _transposed(1),
    F.conv_transpose2d: _transposed(2),
    F.conv_transpose3d: _transposed(3),
    F.group_norm: _group_norm,
    F.instance_norm: _instance_norm,
    F.layer_norm: _layer_norm,
    F.linear: _linear,
    F.prelu: _prelu,
    torch.Tensor.add: _add,
    torch.Tensor.__add__: _add,
    torch.add: _add,
    torch.Tensor.expand: _expand,
}
