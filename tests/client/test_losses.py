"""No loss that a job can choose mixes patients."""

from typing import get_args

import pytest
import torch

from shared import tasks
from shared.job import Job, Training

LOSSES = [loss for part in get_args(Training.model_fields["loss"].annotation) for loss in get_args(part)]
CHOICES = [("segmentation", loss) for loss in LOSSES] + [("classification", "ce")]


def test_the_losses_are_one_short_list():
    assert sorted(LOSSES) == ["ce", "dice", "dice_ce"]


@pytest.mark.parametrize("weights", [None, [1.0, 5.0, 2.0]])
@pytest.mark.parametrize(("task", "loss"), CHOICES)
def test_the_loss_of_an_image_is_the_same_in_any_company(task, loss, weights):
    job = Job.from_dict(
        {"name": "one", "task": task, "classes": ["a", "b", "c"], "images": {"size": [8, 8]}}
        | {"network": {"name": "UNet"}, "training": {"loss": loss, "class_weights": weights}}
        | {"privacy": {"epsilon": 8.0}}
    )
    random = torch.Generator().manual_seed(0)
    whole = (8, 8) if task == "segmentation" else ()
    logits = torch.randn((4, 3, *whole), generator=random, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(3, (4, 1, *whole) if whole else (4,), generator=random)
    together = tasks.of(job).loss(logits, targets)
    alone = [tasks.of(job).loss(logits[n : n + 1], targets[n : n + 1])[0] for n in range(4)]
    torch.testing.assert_close(together, torch.stack(alone))
    for number in range(4):  # nor does its gradient reach any other
        (gradient,) = torch.autograd.grad(together[number], logits, retain_graph=True)
        assert gradient[number].any()
        assert not gradient[[other for other in range(4) if other != number]].any()
