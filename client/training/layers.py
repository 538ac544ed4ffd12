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

from client.training.precision import of_sums

if TYPE_CHECKING:
    from client.training.noting import Notes

_aten = torch.ops.aten


class Convolution(Function):
    """Any convolution: its input's gradient as ever, its weight's and bias's for each image."""

    @staticmethod
    def forward(
        ctx: Any, notes: Notes, image: Tensor, weight: Tensor, bias: Tensor | None, geometry: tuple[Any, ...]
    ) -> Tensor:
        ctx.save_for_backward(image, weight)
        ctx.notes, ctx.geometry, ctx.ids = notes, geometry, (id(weight), id(bias))
        output: Tensor = _aten.convolution(image, weight.to(image), _like(bias, image), *geometry)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        image, weight = ctx.saved_tensors
        _, for_image, for_weight, for_bias, _ = ctx.needs_input_grad
        weight = weight.to(image)
        if for_weight:
            _note_weight(ctx.notes, ctx.ids[0], gradient, image, weight, ctx.geometry)
        if for_bias:
            ctx.notes.add(ctx.ids[1], of_sums(gradient).flatten(2).sum(2))
        result = None
        if for_image:
            result = _aten.convolution_backward(gradient, image, weight, None, *ctx.geometry, [True, False, False])[0]
        return None, result, None, None, None


def _note_weight(
    notes: Notes, name: int, gradient: Tensor, image: Tensor, weight: Tensor, geometry: tuple[Any, ...]
) -> None:
    stride, padding, dilation, transposed, _, groups = geometry
    kernel, plain = weight.shape[2:], not transposed and groups == 1 and all(step == 1 for step in dilation)
    few = notes.are_few(gradient[0, 0].numel(), len(weight), weight[0].numel())
    if plain and (few or kernel.numel() == 1):
        notes.add_product(name, gradient.flatten(2).mT, _windows(image, kernel, stride, padding))
        return
    # One convolution in which each image is a group of its own; its weight's values do not matter.
    count = len(image)
    found = _aten.convolution_backward(
        gradient.reshape(1, -1, *gradient.shape[2:]),
        image.reshape(1, -1, *image.shape[2:]),
        weight.new_zeros(1).expand(count * len(weight), *weight.shape[1:]),
        None,
        *geometry[:-1],
        groups * count,
        [False, True, False],
    )[1]
    notes.add(name, found.view(count, *weight.shape))


def _windows(image: Tensor, kernel: torch.Size, stride: list[int], padding: list[int]) -> Tensor:
    """What the kernel sees at each position, (M, positions, channels × kernel)."""
    dimensions = len(kernel)
    if kernel.numel() == 1 and not any(padding) and all(step == 1 for step in stride):
        return image.flatten(2).mT
    image = F.pad(image, [width for side in reversed(padding) for width in (side, side)])
    for axis in range(dimensions):
        image = image.unfold(2 + axis, kernel[axis], stride[axis])
    where, within = range(2, 2 + dimensions), range(2 + dimensions, 2 + 2 * dimensions)
    ordered = image.permute(0, *where, 1, *within)
    return ordered.reshape(len(image), -1, image.shape[1] * kernel.numel())


def _like(parameter: Tensor | None, image: Tensor) -> Tensor | None:
    return None if parameter is None else parameter.to(image)


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
        count, channels, positions, groups = ctx.sizes
        needed = list(ctx.needs_input_grad[1:4])
        # To the kernel all images are one, of so many times the channels and groups: it adds nothing up over images.
        result, of_weight, of_bias = _aten.native_group_norm_backward(
            gradient.reshape(1, -1, positions),
            image.view(1, -1, positions),
            mean.view(1, -1),
            scale.view(1, -1),
            None if weight is None else weight.repeat(count),
            1,
            count * channels,
            positions,
            count * groups,
            needed,
        )
        if needed[1]:
            ctx.notes.add(ctx.ids[0], of_weight.view(count, channels))
        if needed[2]:
            ctx.notes.add(ctx.ids[1], of_bias.view(count, channels))
        return None, result.view_as(image) if needed[0] else None, None, None, None, None


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
        return F.linear(image, weight.to(image), _like(bias, image))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        image, weight = ctx.saved_tensors
        _, for_image, for_weight, for_bias = ctx.needs_input_grad
        rows = gradient.reshape(len(image), -1, weight.shape[0])
        if for_weight:
            ctx.notes.add_product(ctx.ids[0], rows, image.reshape(len(image), -1, weight.shape[1]))
        if for_bias:
            ctx.notes.add(ctx.ids[1], of_sums(rows).sum(1))
        return None, gradient @ weight.to(image) if for_image else None, None, None


class PReLU(Function):
    """A rectifier whose slope for negative values, one or one a channel, is learnt."""

    @staticmethod
    def forward(ctx: Any, notes: Notes, image: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(image, weight)
        ctx.notes, ctx.id = notes, id(weight)
        output: Tensor = _aten._prelu_kernel(image, _slopes(weight, image))
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        image, weight = ctx.saved_tensors
        result, of_slope = _aten._prelu_kernel_backward(gradient, image, _slopes(weight, image))
        if ctx.needs_input_grad[2]:
            axes = list(range(2, image.ndim)) if weight.numel() > 1 else list(range(1, image.ndim))
            found = of_sums(of_slope).sum(axes) if axes else of_slope
            ctx.notes.add(ctx.id, found.reshape(len(image), *weight.shape))
        return None, result, None


def _slopes(weight: Tensor, image: Tensor) -> Tensor:
    return weight.to(image).view(1, -1, *[1] * (image.ndim - 2)) if image.ndim > 1 else weight.to(image)


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
