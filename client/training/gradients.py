"""The gradient of each image by itself, of a whole batch at once.

There are two ways to it. `vmap(grad)` runs any network as if each image were alone: it cannot mix images, and it is the
measure of right and wrong here. But it takes half as long again as ordinary training, and more where layers are many
and small. So the quick way is tried first: the batch goes forward and backward as in ordinary training, and as the
backward pass comes by, the layers that have parameters note what each image adds to their gradient (see `noting`).
That is exact if images do not meet anywhere in the network and every parameter is in a layer that takes notes. Whether
it is so is found out on random images, never on a patient's, before any patient's are looked at; a network that does
not pass is trained with `vmap`. A parameter used in any other way would be seen in every step, and stop the training.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from client.training.noting import Gradients, Notes
from shared import tasks
from shared.job import Job
from shared.tasks import Task

# Of (images (M, …), targets (M, …)): of each parameter that trains (M, *its shape).
GradientsOfImages = Callable[[Tensor, Tensor], Gradients]

_ROUNDING = 0.01  # differences in single precision are a tenth of it at most
_REMEMBERED = 64
_agreed: dict[tuple[str, tuple[str, ...]], bool] = {}


def trained(network: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that train, by name."""
    return {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}


def of_images(network: nn.Module, job: Job) -> GradientsOfImages:
    """The quickest exact way for this network, with whatever its parameters are when it is called.

    What was found out about a job's network is remembered: it does not depend on the parameters' values.
    """
    key = (job.digest, tuple(trained(network)))
    if key not in _agreed:
        while len(_agreed) >= _REMEMBERED:
            del _agreed[next(iter(_agreed))]
        _agreed[key] = _agree(network, job)
    return (by_layers if _agreed[key] else by_vmap)(network, tasks.of(job))


def by_vmap(network: nn.Module, task: Task) -> GradientsOfImages:
    """For any network without batch statistics."""
    learning = trained(network)
    fixed = {name: p for name, p in network.named_parameters() if name not in learning} | dict(network.named_buffers())

    def loss_of_one(parameters: Mapping[str, Tensor], image: Tensor, target: Tensor) -> Tensor:
        logits = functional_call(network, {**fixed, **parameters}, (image[None],))
        return task.loss(logits, target[None])[0]

    gradients = vmap(grad(loss_of_one), in_dims=(None, 0, 0), randomness="different")

    def of(images: Tensor, targets: Tensor) -> Gradients:
        result: Gradients = gradients({name: p.detach() for name, p in learning.items()}, images, targets)
        return result

    return of


class NotCovered(Exception):
    """A parameter is used in a way that the quick way does not know."""


def by_layers(network: nn.Module, task: Task) -> GradientsOfImages:
    """For networks in which images never meet and parameters are in the layers known here.

    The function raises `NotCovered` if a parameter is used elsewhere.
    """
    learning = trained(network)

    def of(images: Tensor, targets: Tensor) -> Gradients:
        for parameter in learning.values():
            parameter.grad = None
        with Notes(learning, len(images)) as notes:
            loss = task.loss(network(images), targets).sum()
        torch.autograd.backward(loss)
        stray = [name for name, parameter in learning.items() if parameter.grad is not None]
        for parameter in learning.values():
            parameter.grad = None
        if stray:
            raise NotCovered(f"{stray[0]} is used outside the layers known")
        unused = {name: p for name, p in learning.items() if name not in notes.gradients}
        found: Gradients = notes.gradients | {name: p.new_zeros((len(images), *p.shape)) for name, p in unused.items()}
        return found

    return of


def _agree(network: nn.Module, job: Job) -> bool:
    """Whether both ways give the same gradients of two random images, but for rounding.

    The tests do the same in double precision, where the difference is nothing, for every network there is. Images that
    met, or a parameter that was missed, would differ by more than rounding ever does.
    """
    device = next(network.parameters()).device
    random = torch.Generator().manual_seed(0)
    images = torch.randn((2, job.images.channels, *job.images.size), generator=random).to(device)
    shape = (2, 1, *job.images.size) if job.task == "segmentation" else (2,)
    targets = torch.randint(len(job.classes), shape, generator=random).to(device)
    task, was_training = tasks.of(job), network.training
    network.eval()  # dropout draws anew each time
    try:
        found = by_layers(network, task)(images, targets)
        expected = by_vmap(network, task)(images, targets)
    except (NotCovered, RuntimeError):
        return False
    finally:
        network.train(was_training)
    return all(_differ_little(found, expected, image) for image in range(len(images)))


def _differ_little(found: Gradients, expected: Gradients, image: int) -> bool:
    total = torch.stack([value[image].norm() for value in expected.values()]).norm()
    return all(
        bool((found[name][image] - value[image]).norm() <= _ROUNDING * (value[image].norm() + 0.1 * total))
        for name, value in expected.items()
    )
