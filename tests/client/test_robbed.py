"""A network whose gradient copies an image ("Robbing the Fed", Fowl et al. 2022, arXiv:2110.13057), and what it gets.

A vision transformer that takes the whole image as one patch begins with one linear layer over all pixels. The gradient
of its weights is the image, once a unit, times a number: whoever sees a step that one patient was drawn for can read
that patient's image from it. The coordinator chooses network and weights, so that it may well ask for this.
"""

import numpy as np
import pytest
from asking import ask, train

from client.data.loading import Cohort
from shared import arrays, networks
from shared.job import Job

COPYING = "vit.patch_embedding.patch_embeddings.weight"


@pytest.fixture
def robbing(private_job) -> Job:
    return Job.from_dict(
        {
            **private_job.model_dump(mode="json", exclude_none=True),
            "network": {"name": "UNETR", "feature_size": 8, "hidden_size": 24, "mlp_dim": 24, "num_heads": 2},
            "training": {"optimizer": "sgd", "learning_rate": 0.1, "local_steps": 1, "batch_size": 1},
            "federation": {"rounds": 1, "min_sites": 1, "evaluate_at_end": False},
        }
    ).varied(privacy={"epsilon": 8.0, "delta": 1e-4, "sample_rate": 0.02})


def crafted(job: Job, amplified: float) -> dict[str, np.ndarray]:
    """A model of the job in which what comes after the copying layer weighs so much more."""
    model = arrays.of_network(networks.build(job))
    name = "vit.blocks.0.norm1.weight"
    return {**model, name: model[name] * np.float32(amplified)}


def stolen(update, model) -> np.ndarray:
    """The image in the change of the copying layer: the one pattern that all its units were changed by."""
    change = (update.model[COPYING] - model[COPYING]).reshape(len(model[COPYING]), -1).astype(np.float64)
    return np.linalg.svd(change, full_matrices=False)[2][0]


def likeness(found: np.ndarray, site, job: Job) -> float:
    """How much it is like the most similar image of the site's training patients: 1 is the image itself."""
    cohort = Cohort(site, "data", job, "train")
    images = [cohort.load(i, 0)[0].numpy().ravel().astype(np.float64) for i in range(len(cohort))]
    return max(abs(float(image @ found)) / float(np.linalg.norm(image)) for image in images)


def test_without_privacy_one_step_gives_a_patients_image_away(hospital, robbing):
    job = robbing.without_privacy()
    site, model = hospital(), crafted(job, 1.0)
    assert likeness(stolen(ask(site, train(job, model=model)), model), site, job) > 0.99


@pytest.mark.parametrize("amplified", [1.0, 1e3, 1e6])
def test_with_privacy_it_gets_nothing_that_looks_like_anybody(hospital, robbing, amplified):
    site, model = hospital(rules={"epsilon": 1e3, "delta": 1e-3}), crafted(robbing, amplified)
    likenesses = [
        likeness(stolen(ask(site, train(robbing, run=f"run-{number}", model=model)), model), site, robbing)
        for number in range(5)
    ]
    assert max(likenesses) < 0.5
