"""Each algorithm against its paper's update, worked out by hand on sites whose losses are parabolas."""

import numpy as np
import pytest

from server import algorithms
from shared.errors import BadInput

# Site k has the loss (w - c)² / 2 and takes one step of length .5: w → w - .5 (w - c).
MINIMA = (1.0, 4.0)


def rounds(job, count: int) -> list[float]:
    algorithm, model, said = algorithms.of(job), {"w": np.zeros(1, np.float32)}, []
    for _ in range(count):
        sums = algorithm.begin(model)
        for minimum in MINIMA:
            sums.add({"w": (model["w"] - 0.5 * (model["w"] - minimum)).astype(np.float32)}, weight=1.0)
        model = sums.step()
        said.append(float(model["w"][0]))
    return said


def test_fedavg_is_the_mean_of_the_models(job):
    # w ← mean of .5 w + .5 c = .5 w + 1.25
    assert rounds(job, 3) == [1.25, 1.875, 2.1875]


def test_fedavgm_adds_up_what_it_moved_before(job):
    # Δ = -.5 w + 1.25; v ← .5 v + Δ; w ← w + v
    momentum = job.varied(federation={"algorithm": "fedavgm", "momentum": 0.5})
    assert rounds(momentum, 3) == [1.25, 1.25 + (0.625 + 0.625), 2.5 + (0.625 + 0.0)]


def test_fedavgm_without_momentum_is_fedavg(job):
    still = job.varied(federation={"algorithm": "fedavgm", "momentum": 0.0})
    assert rounds(still, 5) == rounds(job, 5)


def test_fedavgm_has_the_papers_momentum_unless_the_job_says_another(job):
    # v ← .9 v + Δ: 1.25, then 1.125 + .625
    assert rounds(job.varied(federation={"algorithm": "fedavgm"}), 2) == pytest.approx([1.25, 3.0])


def test_a_momentum_without_its_algorithm_is_a_mistake(job):
    data = job.model_dump(mode="json", exclude_none=True)
    with pytest.raises(BadInput, match="momentum goes with"):
        type(job).from_dict({**data, "federation": {"momentum": 0.5}})


def test_every_algorithm_says_what_it_is():
    rows = algorithms.describe()
    assert {row["name"] for row in rows} == {"fedavg", "fedavgm"}
    assert all(row["what"] for row in rows)
