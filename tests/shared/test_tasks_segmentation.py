"""The loss and the figures of segmentation."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from monai.losses import DiceCELoss
from monai.losses.dice import DiceLoss
from monai.metrics.hausdorff_distance import compute_hausdorff_distance
from monai.metrics.meandice import compute_dice
from torch import Tensor
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from shared import networks, tasks
from shared.job import Job
from shared.messages import is_listed
from shared.tasks.masks import Pair, dice, most_likely


def a_job(classes: int = 3, size: tuple[int, ...] = (16, 16), **training: Any) -> Job:
    return Job.from_dict(
        {
            "name": "test",
            "task": "segmentation",
            "classes": [str(index) for index in range(classes)],
            "images": {"size": list(size)},
            "network": {"name": "UNet", "channels": [4, 8], "strides": [2]},
            "training": training,
            "privacy": {"mode": "none"},
        }
    )


def outputs(count: int = 4, classes: int = 3, size: tuple[int, ...] = (16, 16)) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(count, classes, *size, generator=generator)
    return logits, torch.randint(0, classes, (count, 1, *size), generator=generator)


def certain(masks: Tensor, classes: int) -> Tensor:
    """Logits of which these masks (B, *size) are the prediction."""
    return 20.0 * F.one_hot(masks, classes).movedim(-1, 1).float()


def one_hot(masks: Tensor, classes: int) -> Tensor:
    return F.one_hot(masks, classes).movedim(-1, 1)


@pytest.mark.parametrize("size", [(16, 16), (8, 6, 10)])
def test_the_loss_of_each_image_is_monais_of_it_alone(size: tuple[int, ...]) -> None:
    logits, target = outputs(size=size)
    options: dict[str, Any] = {"include_background": False, "softmax": True, "to_onehot_y": True}
    for loss, reference in (
        (None, DiceCELoss(**options)),
        ("dice", DiceLoss(**options)),
        ("ce", lambda x, y: F.cross_entropy(x, y[:, 0])),
    ):
        values = tasks.of(a_job(size=size, loss=loss)).loss(logits, target)
        alone = [reference(logits[i : i + 1], target[i : i + 1]) for i in range(len(logits))]
        torch.testing.assert_close(values, torch.stack(alone))


def test_class_weights_weight_the_voxels_of_an_image_as_torch_does() -> None:
    logits, target = outputs()
    values = tasks.of(a_job(loss="ce", class_weights=[1, 5, 0.5])).loss(logits, target)
    weight = torch.tensor([1, 5, 0.5])
    alone = [F.cross_entropy(logits[i : i + 1], target[i : i + 1, 0], weight=weight) for i in range(len(logits))]
    torch.testing.assert_close(values, torch.stack(alone))


def test_the_background_is_no_part_of_the_dice_loss() -> None:
    task = tasks.of(a_job(2, loss="dice"))
    target = torch.zeros(1, 1, 16, 16, dtype=torch.int64)
    target[0, 0, :4] = 1
    right, wrong = certain(target[:, 0], 2), certain(torch.zeros_like(target[:, 0]), 2)
    assert float(task.loss(right, target)[0]) < 1e-3
    assert float(task.loss(wrong, target)[0]) > 0.99  # although three quarters of the background are right


@pytest.mark.parametrize("training", [{}, {"class_weights": [1, 2, 3]}, {"loss": "dice"}, {"loss": "ce"}])
def test_the_loss_works_under_vmap_and_grad(training: dict[str, Any]) -> None:
    job = a_job(**training)
    task, network = tasks.of(job), networks.build(job).double()
    images, target = torch.randn(3, 1, 16, 16, dtype=torch.float64), outputs(3)[1]
    parameters = {name: value.detach() for name, value in network.named_parameters()}

    def of_one(parameters: dict[str, Tensor], image: Tensor, truth: Tensor) -> Tensor:
        return task.loss(functional_call(network, parameters, (image[None],)), truth[None])[0]

    each = vmap(grad(of_one), in_dims=(None, 0, 0), chunk_size=2)(parameters, images, target)
    for index in range(3):
        network.zero_grad()
        task.loss(network(images), target)[index].backward()
        for name, value in network.named_parameters():
            torch.testing.assert_close(each[name][index], value.grad, rtol=1e-9, atol=1e-12)


def test_half_precision_logits_do_not_overflow_the_loss() -> None:
    logits, target = outputs(size=(64, 64))
    exact = tasks.of(a_job()).loss(logits, target)
    torch.testing.assert_close(tasks.of(a_job()).loss(logits.half(), target), exact, rtol=1e-3, atol=1e-3)


def test_the_most_likely_class_is_argmax() -> None:
    logits, _ = outputs(classes=5)
    logits[0, :, :3] = 1.0  # ties
    assert torch.equal(most_likely(logits), logits.argmax(1))


def test_dice_is_monais_and_undefined_where_neither_mask_has_the_class() -> None:
    logits, target = outputs(classes=4)
    prediction, truth = logits.argmax(1), target[:, 0]
    prediction[truth == 3] = 0
    truth[truth == 3] = 0
    prediction[prediction == 3] = 0
    prediction[1][prediction[1] == 2] = 0  # a class missed altogether
    scores = dice(prediction, truth, 4)
    reference = compute_dice(
        one_hot(prediction, 4), one_hot(truth, 4), include_background=False, ignore_empty=False, num_classes=4
    )
    torch.testing.assert_close(scores[:, :2], reference[:, :2].double())
    assert scores[1, 1] == 0
    assert scores[:, 2].isnan().all()


def test_dice_by_hand() -> None:
    prediction = torch.tensor([[[1, 1, 0, 2]]])
    truth = torch.tensor([[[1, 0, 0, 2]]])
    assert dice(prediction, truth, 3).tolist() == [[pytest.approx(2 / 3), 1.0]]


def mask(*points: tuple[int, ...], size: tuple[int, ...] = (20, 20)) -> np.ndarray:
    array = np.zeros(size, np.uint8)
    for point in points:
        array[point] = 1
    return array


def test_hausdorff_distance_by_hand_in_voxels_and_millimetres() -> None:
    one, other = mask((5, 5)), mask((8, 9))
    assert Pair.of(one, other, None).hausdorff95(1) == pytest.approx(5)
    assert Pair.of(one, other, (2.0, 1.0)).hausdorff95(1) == pytest.approx(math.hypot(6, 4))
    assert Pair.of(one, one, (2.0, 1.0)).hausdorff95(1) == 0


def test_hausdorff_distance_of_a_miss_is_the_diagonal_and_of_nothing_undefined() -> None:
    nothing = mask()
    assert Pair.of(mask((5, 5)), nothing, (3.0, 1.0)).hausdorff95(1) == pytest.approx(math.hypot(60, 20))
    assert Pair.of(nothing, mask((5, 5)), None).hausdorff95(1) == pytest.approx(math.hypot(20, 20))
    assert math.isnan(Pair.of(nothing, nothing, None).hausdorff95(1))


@pytest.mark.parametrize("size", [(24, 20), (12, 10, 14)])
def test_hausdorff_distance_of_the_cropped_masks_is_that_of_the_whole(size: tuple[int, ...]) -> None:
    generator = np.random.default_rng(2)
    spacing = [0.5, 2.0, 1.5][: len(size)]
    for _ in range(10):
        pair = []
        for _ in range(2):
            array = np.zeros(size, np.uint8)
            corner = [int(generator.integers(0, extent - 3)) for extent in size]
            array[tuple(slice(c, c + int(generator.integers(1, 8))) for c in corner)] = 1
            pair.append(array)
        whole = compute_hausdorff_distance(
            *(torch.from_numpy(array[None, None]) for array in pair),
            include_background=True,
            percentile=95,
            spacing=spacing,
        )
        assert Pair.of(pair[0], pair[1], spacing).hausdorff95(1) == pytest.approx(float(whole))


def test_lesions_by_hand() -> None:
    truth = mask((1, 1), (1, 2), (10, 10), (15, 3))  # three lesions
    prediction = mask((1, 2), (2, 3), (10, 10), (18, 18), (5, 15))  # finds two, two false alarms
    assert Pair.of(prediction, truth, None).lesion_f1(1) == pytest.approx(2 * 2 / (2 * 2 + 2 + 1))
    assert Pair.of(mask(), truth, None).lesion_f1(1) == 0
    assert Pair.of(prediction, mask(), None).lesion_f1(1) == 0
    assert math.isnan(Pair.of(mask(), mask(), None).lesion_f1(1))


def test_lesions_that_touch_at_a_corner_are_one_and_one_prediction_may_find_two() -> None:
    truth = mask((1, 1), (2, 2), (8, 1))
    prediction = mask(*[(row, 1) for row in range(1, 9)])
    assert Pair.of(prediction, truth, None).lesion_f1(1) == 1
    other_class = truth * 2
    assert math.isnan(Pair.of(prediction, other_class, None).lesion_f1(3))
    assert Pair.of(prediction, other_class, None).lesion_f1(2) == 0


def test_figures_are_of_patients_first() -> None:
    truth = torch.zeros(3, 1, 16, 16, dtype=torch.int64)
    truth[:, 0, :4, :4] = 1
    prediction = truth[:, 0].clone()
    prediction[1] = 0  # dice 0
    measure = tasks.of(a_job(2)).measure()
    measure.add("a", certain(prediction[:2], 2), truth[:2], None)  # (1 + 0) / 2
    measure.add("b", certain(prediction[2:], 2), truth[2:], None)  # 1
    figures = measure.compute()
    assert figures["patients"] == 2
    assert figures["dice"] == figures["dice.1"] == pytest.approx(0.75)
    images = tasks.of(a_job(2)).loss(certain(prediction, 2), truth)
    assert figures["loss"] == pytest.approx(float((images[:2].mean() + images[2]) / 2))
    assert set(figures) == {"patients", "loss", "dice", "dice.1"}


def test_batches_of_several_patients_give_the_same_figures() -> None:
    logits, target = outputs(6)
    names = ["a", "b", "a", "c", "c", "b"]
    together, apart = tasks.of(a_job()).measure(), tasks.of(a_job()).measure()
    together.add(names, logits, target, (1.0, 2.0))
    for index, name in enumerate(names):
        apart.add(name, logits[index : index + 1], target[index : index + 1], (1.0, 2.0))
    assert together.compute(full=True) == pytest.approx(apart.compute(full=True))


def test_a_class_in_neither_mask_is_left_out_of_that_patients_mean() -> None:
    truth = torch.zeros(2, 1, 16, 16, dtype=torch.int64)
    truth[0, 0, :4] = 1
    truth[0, 0, 8:12] = 2
    truth[1, 0, :4] = 1
    prediction = truth[:, 0].clone()
    prediction[0, 8:10] = 0  # half of class 2: dice 2/3
    measure = tasks.of(a_job(3)).measure()
    measure.add("a", certain(prediction[:1], 3), truth[:1])
    measure.add("b", certain(prediction[1:], 3), truth[1:])
    figures = measure.compute(full=True)
    assert figures["dice.1"] == 1
    assert figures["dice.2"] == pytest.approx(2 / 3)  # of patient a alone
    assert figures["dice"] == pytest.approx(((1 + 2 / 3) / 2 + 1) / 2)
    assert figures["lesion_f1"] == 1
    assert figures["hausdorff95.1"] == 0
    assert all(is_listed(name) for name in figures)


def test_what_is_not_defined_is_left_out() -> None:
    nothing = torch.zeros(1, 1, 16, 16, dtype=torch.int64)
    measure = tasks.of(a_job(2)).measure()
    assert measure.compute() == {"patients": 0}
    measure.add("a", certain(nothing[:, 0], 2), nothing)
    assert set(measure.compute(full=True)) == {"patients", "loss"}
    measure.add("b", torch.full((1, 2, 16, 16), torch.nan), nothing)
    assert measure.compute() == {"patients": 2}


def test_a_metric_in_millimetres_takes_each_images_spacing() -> None:
    truth, prediction = (torch.zeros(1, 1, 16, 16, dtype=torch.int64) for _ in range(2))
    truth[0, 0, 4, 4] = prediction[0, 0, 8, 4] = 1
    measure = tasks.of(a_job(2)).measure()
    measure.add("a", certain(prediction[:, 0], 2), truth, (1.0, 1.0))
    measure.add("b", certain(prediction[:, 0], 2), truth, (3.0, 1.0))
    assert measure.compute(full=True)["hausdorff95"] == pytest.approx((4 + 12) / 2)
