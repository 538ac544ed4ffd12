"""The same job over the same hospitals is the same training, whichever way it runs."""

import numpy as np
import pytest

from client.ledger import Ledger
from server import pretraining
from shared import accounting, arrays, console
from simulations.engine import simulate
from simulations.hospitals import DATASET, admit


@pytest.fixture
def sites(hospitals, tmp_path):
    with console.progress() as progress:
        return admit(hospitals, tmp_path / "sites", progress=progress)


def test_the_same_job_in_process_twice_gives_the_same_bits(job, sites, tmp_path):
    first = simulate(job, sites, tmp_path / "first")
    second = simulate(job, sites, tmp_path / "second")
    assert [row.model for row in first.rounds] == [row.model for row in second.rounds]
    assert arrays.digest(first.model()) == arrays.digest(second.model())
    assert arrays.digest(first.model(0)) != arrays.digest(first.model())


def test_a_model_is_written_after_every_round(job, sites, tmp_path):
    finished = simulate(job, sites, tmp_path / "home")
    assert [arrays.digest(finished.model(row.round)) for row in finished.rounds] == [
        row.model for row in finished.rounds
    ]
    assert [row.contributed for row in finished.rounds] == [("east", "north", "south")] * 2
    assert finished.store.run(finished.run).status == "completed"


def test_a_run_that_starts_from_phantoms_starts_from_the_pretrained_model(job, sites, tmp_path, monkeypatch):
    monkeypatch.setattr(pretraining, "STEPS", 2)
    pretrained = job.varied(training={"start_from": "phantoms"})
    finished = simulate(pretrained, sites, tmp_path / "home")
    assert arrays.digest(finished.model(0)) == arrays.digest(pretraining.initial(pretrained))
    assert arrays.digest(finished.model(0)) != arrays.digest(pretraining.initial(job))


def test_training_learns(job, sites, tmp_path):
    longer = job.varied(training={"local_steps": 30, "learning_rate": 0.01}, federation={"rounds": 4})
    finished = simulate(longer, sites, tmp_path / "home")
    figures = finished.store.figures(finished.run)
    assert set(figures) == {"east", "north", "south"}
    assert all(numbers["dice"] > 0.7 for numbers in figures.values()), figures


def test_a_private_run_spends_what_it_declared_and_says_of_patients_only_what_is_noised(private_job, sites, tmp_path):
    finished = simulate(private_job, sites, tmp_path / "home")
    assert all(row.numbers == {site: {} for site in sites} for row in finished.rounds)
    assert all(set(said) <= {"patients", "dice"} for said in finished.store.figures(finished.run).values())
    for site in sites.values():
        assert len(Ledger(site).history(DATASET, run=finished.run, split="test")) == 1
        history = Ledger(site).history(DATASET, job=private_job.digest, run=finished.run)
        assert sum(steps for _, _, steps in history) == 4
        assert 0.9 * 8.0 < accounting.epsilon(history, delta=1e-4) <= 8.0


def test_the_noise_of_two_private_runs_differs_whatever_the_seed(private_job, sites, tmp_path):
    models = [simulate(private_job, sites, tmp_path / name).model() for name in ("first", "second")]
    assert arrays.digest(models[0]) != arrays.digest(models[1])


@pytest.mark.federation
def test_rays_workers_train_the_same_model(job, sites, tmp_path):
    here = simulate(job, sites, tmp_path / "here").model()
    there = simulate(job, sites, tmp_path / "there", engine="ray").model()
    for name, array in here.items():
        np.testing.assert_allclose(there[name], array, rtol=1e-4, atol=1e-5)
