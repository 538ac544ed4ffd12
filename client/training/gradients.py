"""The gradient of each patient by themself, of a whole batch at once.

What it has to be is plain: that of an ordinary backward pass over the patient's images alone. The quick way to it for
many patients sends the batch forward and backward as in ordinary training, and as the backward pass comes by, the
layers that have parameters note what each patient adds to their gradient (see `noting`). That is exact if images do not
meet anywhere in the network and every parameter is in a layer that takes notes. Whether it is so is found out on two
random images, never on a patient's, before any patient's are looked at. A network that does not pass is trained with
`vmap(grad)`, which runs any network as if each image were alone, and takes half as long again. A parameter used in any
other way would be seen in every step, and stop the training.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from client.training import memory, precision
from client.training.drawing import Batch
from client.training.noting import Notes, Shares
from client.training.shares import Rows
from shared import tasks
from shared.job import Job

# Each patient's gradient of the mean loss over their images.
GradientsOfPatients = Callable[[Batch], Shares]

_ROUNDING = 0.01  # differences in single precision are a tenth of it at most
_REMEMBERED = 64


@dataclass(frozen=True)
class Found:
    """What a trial found out about a network.

    Attributes:
        quick: whether images do not meet and all parameters are noted.
        bytes_an_image: what an image takes of memory in a pass, about.
    """

    quick: bool
    bytes_an_image: int


_found: dict[tuple[str, tuple[str, ...]], Found] = {}


def trained(network: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that train, by name."""
    return {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}


def find_out(network: nn.Module, job: Job) -> Found:
    """The trial of a job's network; remembered, for it does not depend on the parameters' values."""
    key = (job.digest, tuple(trained(network)))
    if key not in _found:
        while len(_found) >= _REMEMBERED:
            del _found[next(iter(_found))]
        _found[key] = _try(network, job)
    return _found[key]


def of_patients(network: nn.Module, job: Job) -> GradientsOfPatients:
    """The quickest exact way for this network, with whatever its parameters are when it is called."""
    quick = find_out(network, job).quick
    alone, together = by_itself(network, job), (by_layers if quick else by_vmap)(network, job)

    def of(batch: Batch) -> Shares:
        nobody_else = len(batch.images) == 1 or (quick and batch.patients == 1)
        return (alone if nobody_else else together)(batch)

    return of


def by_vmap(network: nn.Module, job: Job) -> GradientsOfPatients:
    """For any network without batch statistics."""
    learning, task = trained(network), tasks.of(job)
    fixed = {name: p for name, p in network.named_parameters() if name not in learning} | dict(network.named_buffers())

    def loss_of_one(parameters: Mapping[str, Tensor], image: Tensor, target: Tensor, share: Tensor) -> Tensor:
        logits = functional_call(network, {**fixed, **parameters}, (image[None],))
        return task.loss(logits, target[None])[0] * share

    gradients = vmap(grad(loss_of_one), in_dims=(None, 0, 0, 0), randomness="different")

    def of(batch: Batch) -> Shares:
        now = {name: p.detach() for name, p in learning.items()}
        with precision.asked(job.training, batch.images.device):
            found = gradients(now, batch.images, batch.targets, batch.share)
        if batch.one_image_each:
            return {name: Rows(value) for name, value in found.items()}
        owner = batch.owner
        sums = {name: value.new_zeros((batch.patients, *value.shape[1:])) for name, value in found.items()}
        return {name: Rows(sums[name].index_add_(0, owner, value)) for name, value in found.items()}

    return of


class NotCovered(Exception):
    """A parameter is used in a way that the quick way does not know."""


def by_layers(network: nn.Module, job: Job) -> GradientsOfPatients:
    """For networks in which images never meet and parameters are in the layers known here.

    The function raises `NotCovered` if a parameter is used elsewhere.
    """
    learning, loss_of = trained(network), _loss(network, job)

    def of(batch: Batch) -> Shares:
        for parameter in learning.values():
            parameter.grad = None
        with Notes(learning, batch) as notes:
            loss = loss_of(batch)
        torch.autograd.backward(loss)
        stray = [name for name, parameter in learning.items() if parameter.grad is not None]
        for parameter in learning.values():
            parameter.grad = None
        if stray:
            raise NotCovered(f"{stray[0]} is used outside the layers known")
        found: Shares = notes.shares
        for name in learning.keys() - found.keys():  # not used
            found[name] = Rows(learning[name].new_zeros((batch.patients, *learning[name].shape)))
        return found

    return of


def by_itself(network: nn.Module, job: Job) -> GradientsOfPatients:
    """For one patient, whose gradient is that of ordinary training."""
    learning, loss_of = trained(network), _loss(network, job)

    def of(batch: Batch) -> Shares:
        found = torch.autograd.grad(loss_of(batch), list(learning.values()), materialize_grads=True, allow_unused=True)
        return {name: Rows(value[None]) for name, value in zip(learning, found, strict=True)}

    return of


def _loss(network: nn.Module, job: Job) -> Callable[[Batch], Tensor]:
    """The sum over patients of the mean loss over their images."""
    task = tasks.of(job)

    def of(batch: Batch) -> Tensor:
        with precision.asked(job.training, batch.images.device):
            losses = task.loss(network(batch.images), batch.targets)
        total: Tensor = (losses if batch.one_image_each else losses * batch.share).sum()
        return total

    return of


def _try(network: nn.Module, job: Job) -> Found:
    """Whether two random images together have the gradients that each has by itself, but for rounding.

    The tests do the same in double precision, where the difference is nothing, for every network there is. Images that
    met, or a parameter that was missed, would differ by more than rounding ever does.
    """
    full = job.varied(training={"precision": "float32"})
    two, was_training = _random(job, next(network.parameters()).device), network.training

    def by(way: Callable[[nn.Module, Job], GradientsOfPatients], batch: Batch) -> Shares:
        found = way(network, full)(batch)
        memory.give_back()
        return found

    network.eval()  # dropout draws anew each time
    try:
        kept = _kept(network, two.images[:1])
        each = [by(by_itself, one) for one in two.split(1)]
        try:
            both = by(by_layers, two)
        except (NotCovered, RuntimeError):  # it may also be that there is memory for one of them only
            both = {}
    except Exception as error:
        if memory.ran_out(error):
            raise memory.too_little() from None
        raise
    finally:
        network.train(was_training)
    quick = bool(both) and all(_differ_little(both, number, one) for number, one in enumerate(each))
    noted = sum(share.nbytes for share in both.values()) // 2 if quick else sum(s.nbytes for s in each[0].values())
    # The backward pass makes a gradient of each thing that was kept.
    return Found(quick, 2 * kept + noted)


def _random(job: Job, device: torch.device) -> Batch:
    """Two patients that there are not, with an image each."""
    random = torch.Generator().manual_seed(0)
    images = torch.randn((2, job.images.channels, *job.images.size), generator=random)
    shape = (2, 1, *job.images.size) if job.task == "segmentation" else (2,)
    return Batch(images.to(device), torch.randint(len(job.classes), shape, generator=random).to(device), (1, 1))


def _kept(network: nn.Module, image: Tensor) -> int:
    """Bytes that the forward pass keeps for the backward pass, parameters aside."""
    ours = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    kept = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in ours:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = network(image)
    del output  # not sooner: what has been freed may come again at the same address
    memory.give_back()
    return sum(kept.values())


def _differ_little(both: Shares, number: int, alone: Shares) -> bool:
    only, one = torch.eye(2)[number], torch.ones(1)
    true = {name: share.weighted(one) for name, share in alone.items()}
    total = torch.stack([value.norm() for value in true.values()]).norm()
    return all(
        bool((both[name].weighted(only) - value).norm() <= _ROUNDING * (value.norm() + 0.1 * total))
        for name, value in true.items()
    )
