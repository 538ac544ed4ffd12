"""The optimiser a job asks for. Each round begins with a fresh one: its state never leaves the site, nor stays."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from shared.job import Training


def fresh(training: Training, parameters: Iterable[nn.Parameter]) -> Optimizer:
    """SGD (with momentum), Adam or AdamW over the parameters that train; momentum is SGD's only."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    rate, decay = training.learning_rate, training.weight_decay
    if training.optimizer == "sgd":
        return SGD(trained, lr=rate, momentum=training.momentum, weight_decay=decay, fused=True)
    adam = Adam if training.optimizer == "adam" else AdamW
    return adam(trained, lr=rate, weight_decay=decay, fused=True)
