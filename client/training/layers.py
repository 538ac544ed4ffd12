"""Layers whose backward pass notes what each image adds to the gradient of their parameters.

Each has the same output and the same gradient of its input as PyTorch's own. Its parameters get no gradient in the
usual way: it is noted for each image, and the sum over the images is what the usual way would give.
"""
# ruff: noqa: D102 -- what forward and backward are is said by torch.autograd.Function

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

if TYPE_CHECKING:
    from client.training.noting import Notes

# Measured on the processor: see `_is_small`.
_FEW_POSITIONS, _MANY_CHANNELS = 16, 64 * 64
_aten = torch.ops.aten


class Convolution(Function):
    """Any convolution: its input's gradient as ever, its weight's and bias's for each image."""

    @staticmethod
    def forward(
        ctx: Any, notes: Notes, image: Tensor, weight: Tensor, bias: Tensor | None, geometry: tuple[Any, ...]
    ) -> Tensor:
        ctx.save_for_backward(image, weight)
        ctx.notes, ctx.geometry, ctx.ids = notes, geometry, (id(weight), id(bias))
        output: Tensor = _aten.convolution(image, weight, bias, *geometry)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        image, weight = ctx.saved_tensors
        _, for_image, for_weight, for_bias, _ = ctx.needs_input_grad
        if for_weight:
            ctx.notes.add(ctx.ids[0], _of_weights(gradient, image, weight, ctx.geometry))
        if for_bias:
            ctx.notes.add(ctx.ids[1], gradient.flatten(2).sum(2))
        result = None
        if for_image:
            result = _aten.convolution_backward(gradient, image, weight, None, *ctx.geometry, [True, False, False])[0]
        return None, result, None, None, None


def _of_weights(gradient: Tensor, image: Tensor, weight: Tensor, geometry: tuple[Any, ...]) -> Tensor:
    """The gradient of a convolution's weight for each image, (M, *weight.shape)."""
    count, (*shape, groups) = len(image), geometry
    if _is_small(gradient, weight, geometry):
        stride, padding, _, _, _ = shape
        windows = _windows(image, weight.shape[2:], stride, padding)
        return (gradient.flatten(2) @ windows).view(count, *weight.shape)
    # One convolution in which each image is a group of its own; its weight's values do not matter.
    found: Tensor = _aten.convolution_backward(
        gradient.reshape(1, -1, *gradient.shape[2:]),
        image.reshape(1, -1, *image.shape[2:]),
        weight.new_zeros(1).expand(count * weight.shape[0], *weight.shape[1:]),
        None,
        *shape,
        groups * count,
        [False, True, False],
    )[1]
    return found.view(count, *weight.shape)


def _is_small(gradient: Tensor, weight: Tensor, geometry: tuple[Any, ...]) -> bool:
    """Whether few positions meet a large kernel, or a kernel of one voxel: then matrix products are quicker."""
    _, _, dilation, transposed, _, groups = geometry
    if transposed or groups > 1 or any(step > 1 for step in dilation):
        return False
    positions, kernel = gradient[0, 0].numel(), weight[0, 0].numel()
    return kernel == 1 or (positions <= _FEW_POSITIONS and weight.numel() // kernel >= _MANY_CHANNELS)


def _windows(image: Tensor, kernel: torch.Size, stride: list[int], padding: list[int]) -> Tensor:
    """What the kernel sees at each position, (M, positions, channels × kernel)."""
    dimensions = len(kernel)
    image = F.pad(image, [width for side in reversed(padding) for width in (side, side)])
    for axis in range(dimensions):
        image = image.unfold(2 + axis, kernel[axis], stride[axis])
    where, within = range(2, 2 + dimensions), range(2 + dimensions, 2 + 2 * dimensions)
    ordered = image.permute(0, *where, 1, *within)
    return ordered.reshape(len(image), -1, image.shape[1] * kernel.numel())


class GroupNorm(Function):
    """Group normalisation (Wu and He 2018), and instance normalisation, which is one channel a group."""

    @staticmethod
    def forward(
        ctx: Any, notes: Notes, image: Tensor, weight: Tensor | None, bias: Tensor | None, groups: int, eps: float
    ) -> Tensor:
        image = image.contiguous()
        count, channels = image.shape[:2]
        ctx.sizes = (count, channels, image[0, 0].numel(), groups)
        output, mean, scale = _aten.native_group_norm(image, weight, bias, *ctx.sizes, eps)
        ctx.save_for_backward(image, weight, mean, scale)
        ctx.notes, ctx.ids = notes, (id(weight), id(bias))
        result: Tensor = output
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        image, weight, mean, scale = ctx.saved_tensors
        count, channels, _, groups = ctx.sizes
        _, for_image, for_weight, for_bias, _, _ = ctx.needs_input_grad
        gradient = gradient.contiguous()
        flat = gradient.flatten(2)
        sums = flat.sum(2)
        if for_weight:
            products = torch.linalg.vecdot(flat, image.flatten(2)).view(count, groups, -1)
            centred = products - sums.view(count, groups, -1) * mean.unsqueeze(2)
            ctx.notes.add(ctx.ids[0], (centred * scale.unsqueeze(2)).view(count, channels))
        if for_bias:
            ctx.notes.add(ctx.ids[1], sums)
        result = None
        if for_image:
            result = _aten.native_group_norm_backward(
                gradient, image, mean, scale, weight, *ctx.sizes, [True, False, False]
            )[0]
        return None, result, None, None, None, None


class LayerNorm(Function):
    """Layer normalisation over the last axes."""

    @staticmethod
    def forward(
        ctx: Any, notes: Notes, image: Tensor, weight: Tensor | None, bias: Tensor | None, shape: Any, eps: float
    ) -> Tensor:
        output, mean, scale = _aten.native_layer_norm(image, shape, weight, bias, eps)
        ctx.save_for_backward(image, weight, bias, mean, scale)
        ctx.notes, ctx.shape, ctx.ids = notes, list(shape), (id(weight), id(bias))
        result: Tensor = output
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        image, weight, bias, mean, scale = ctx.saved_tensors
        _, for_image, for_weight, for_bias, _, _ = ctx.needs_input_grad
        between = list(range(1, image.ndim - len(ctx.shape)))
        if for_weight:
            values = gradient * (image - mean) * scale
            ctx.notes.add(ctx.ids[0], values.sum(between) if between else values)
        if for_bias:
            ctx.notes.add(ctx.ids[1], gradient.sum(between) if between else gradient)
        result = None
        if for_image:
            result = _aten.native_layer_norm_backward(
                gradient, image, ctx.shape, mean, scale, weight, bias, [True, False, False]
            )[0]
        return None, result, None, None, None, None


class Linear(Function):
    """A linear layer over the last axis."""

    @staticmethod
    def forward(ctx: Any, notes: Notes, image: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(image, weight)
        ctx.notes, ctx.ids = notes, (id(weight), id(bias))
        return F.linear(image, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        image, weight = ctx.saved_tensors
        _, for_image, for_weight, for_bias = ctx.needs_input_grad
        rows = gradient.reshape(len(image), -1, weight.shape[0])
        if for_weight:
            ctx.notes.add(ctx.ids[0], rows.transpose(1, 2) @ image.reshape(len(image), -1, weight.shape[1]))
        if for_bias:
            ctx.notes.add(ctx.ids[1], rows.sum(1))
        return None, gradient @ weight if for_image else None, None, None


class PReLU(Function):
    """A rectifier whose slope for negative values, one or one a channel, is learnt."""

    @staticmethod
    def forward(ctx: Any, notes: Notes, image: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(image, weight)
        ctx.notes, ctx.id = notes, id(weight)
        return torch.prelu(image, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        image, weight = ctx.saved_tensors
        slopes = weight.view(1, -1, *[1] * (image.ndim - 2)) if image.ndim > 1 else weight
        result, of_slope = _aten._prelu_kernel_backward(gradient, image, slopes)
        if ctx.needs_input_grad[2]:
            axes = list(range(2, image.ndim)) if weight.numel() > 1 else list(range(1, image.ndim))
            found = of_slope.sum(axes) if axes else of_slope
            ctx.notes.add(ctx.id, found.reshape(len(image), *weight.shape))
        return None, result, None


class ForEach(Function):
    """A parameter of one row, as a position embedding is, repeated for each image."""

    @staticmethod
    def forward(ctx: Any, notes: Notes, parameter: Tensor, shape: tuple[int, ...]) -> Tensor:
        ctx.notes, ctx.id = notes, id(parameter)
        return parameter.expand(shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, None]:
        ctx.notes.add(ctx.id, gradient.unsqueeze(1).contiguous())
        return None, None, None
