"""The image sizes a network takes, found by trying."""

from __future__ import annotations

from collections.abc import Callable

Size = tuple[int, ...]
Takes = Callable[[Size], bool]

_LARGEST = 256
_FACTORS = (2, 3, 5)  # of strides
# Far from every multiple: a network that takes these has a smallest size, not a raster.
_ODD = {2: (251, 241), 3: (67, 61, 71)}


def advice(size: Size, takes: Takes) -> str | None:
    """What the size has to be, and the nearest one that works; None if nothing works.

    Args:
        size: one that the network does not take.
        takes: whether the network takes a size.

    >>> advice((90, 121), lambda size: all(extent % 4 == 0 for extent in size))
    'expected multiples of 4 in every axis: try [88, 120]'
    >>> advice((40, 9, 40), lambda size: size[1] % 4 == 0)
    'expected multiples of [1, 4, 1]: try [40, 8, 40]'
    >>> advice((16, 40), lambda size: min(size) >= 30)
    'expected at least 30 in every axis: try [30, 40]'
    """
    if takes(_ODD[len(size)]):
        return _at_least(size, takes)
    for step in _steps():
        # Two multiples in a row: their difference, the step, is one itself.
        if takes(near := _nearest(size, (step,) * len(size))) and takes(tuple(extent + step for extent in near)):
            return _multiples(size, takes, step)
    return None


def _at_least(size: Size, takes: Takes) -> str:
    def with_at_least(extent: int) -> Size:
        return tuple(max(extent, axis) for axis in size)

    fails = min(size)
    works = 2 * fails
    while not takes(with_at_least(works)) and works < _LARGEST:
        fails, works = works, 2 * works
    while works - fails > 1:
        middle = (fails + works) // 2
        fails, works = (fails, middle) if takes(with_at_least(middle)) else (middle, works)
    return f"expected at least {works} in every axis: try {list(with_at_least(works))}"


def _multiples(size: Size, takes: Takes, step: int) -> str:
    steps = [step] * len(size)
    axis = 0
    while axis < len(size):
        # If no step one factor smaller works for this axis, no smaller step does.
        for factor in (factor for factor in _FACTORS if steps[axis] % factor == 0):
            fewer = [*steps[:axis], steps[axis] // factor, *steps[axis + 1 :]]
            near = _nearest(size, tuple(fewer))
            if takes(near) and takes(tuple(extent + less for extent, less in zip(near, fewer, strict=True))):
                steps = fewer
                break
        else:
            axis += 1
    what = f"{step} in every axis" if set(steps) == {step} else f"{steps}"
    return f"expected multiples of {what}: try {list(_nearest(size, tuple(steps)))}"


def _nearest(size: Size, steps: Size) -> Size:
    return tuple(max(step, round(extent / step) * step) for extent, step in zip(size, steps, strict=True))


def _steps() -> list[int]:
    """Products of small strides: the powers of two first, since most networks halve, then the others."""
    powers = [step for step in range(2, _LARGEST + 1) if step & (step - 1) == 0]
    others = [step for step in range(3, _LARGEST + 1) if step not in powers and _is_product(step)]
    return powers + others


def _is_product(number: int) -> bool:
    for factor in _FACTORS:
        while number % factor == 0:
            number //= factor
    return number == 1
