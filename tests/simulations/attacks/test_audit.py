"""The audit clears the mechanism as it is, and refutes each fault that is planted into it.

Faults are planted in the real training, and audited at a claim of ε = 1. Direct tests that find the same without an
audit: of the noise's strength, and of steps and runs with the same noise, in `test_private`, `test_noise` and
`test_canaries` (the audit itself is blind to noise that repeats); of clipping and of the patient as the unit, in
`test_private`.
"""

import json

import numpy as np
import pytest

from client.training import private
from client.training.drawing import Batch
from client.training.noise import Stream
from client.training.private import PatientOptimizer
from shared import accounting, console
from shared.errors import BadInput
from simulations.attacks import audit
from simulations.cli import app

normal, clip = Stream.normal, PatientOptimizer.clip_and_accumulate


def audited_as(job, **options) -> audit.Audit:
    return audit.run(job, canaries=4000, coins=np.random.default_rng(0), **options)


def quarter_of_the_noise(monkeypatch):
    monkeypatch.setattr(Stream, "normal", lambda self, size: normal(self, size) / 4)


def no_noise(monkeypatch):
    monkeypatch.setattr(Stream, "normal", lambda self, size: normal(self, size) * 0)


def no_clipping(monkeypatch):
    def unbounded(self):
        norm, self.max_grad_norm = self.max_grad_norm, 1e9
        clip(self)
        self.max_grad_norm = norm

    monkeypatch.setattr(PatientOptimizer, "clip_and_accumulate", unbounded)


def image_as_the_unit(monkeypatch):
    def of_images(of_patients, batch, at_once):
        return of_patients(Batch(batch.images, batch.targets, (1,) * len(batch.images)))

    monkeypatch.setattr(private, "gradients_of_patients", of_images)


def test_the_mechanism_as_it_is_passes(audited, settled):
    found = audited_as(audited)
    assert not found.refuted
    assert 0 < found.lower_bound < 0.6
    assert (found.claim, found.delta, found.confidence) == (1.0, 1e-5, 0.95)
    assert (found.canaries, found.guesses, found.steps) == (4000, 800, 20)
    assert found.guesses / 2 < found.correct < found.guesses
    assert found.noise_multiplier == accounting.noise_for(audited)
    assert found.lower_bound < found.limit


@pytest.mark.parametrize("plant", [quarter_of_the_noise, no_noise, no_clipping])
def test_a_fault_is_refuted(audited, settled, monkeypatch, plant):
    plant(monkeypatch)
    assert audited_as(audited).refuted


def test_the_image_as_the_unit_is_refuted(audited, settled, monkeypatch):
    job = audited.varied(training={"images_per_patient": 8})
    assert not audited_as(job).refuted
    image_as_the_unit(monkeypatch)
    assert audited_as(job).refuted


@pytest.mark.parametrize(
    ("accounted_for", "what"),
    [({"sample_rate": 0.2, "steps": 4}, "one round alone"), ({"sample_rate": 0.01, "steps": 80}, "a smaller rate")],
)
def test_noise_for_less_than_what_is_done_is_refuted(audited, settled, monkeypatch, accounted_for, what):
    job = audited.varied(federation={"rounds": 20})
    assert not audited_as(job).refuted
    too_little = accounting.calibrate(epsilon=1.0, delta=1e-5, **accounted_for)
    monkeypatch.setattr(accounting, "noise_for", lambda _: too_little)
    assert audited_as(job).refuted, what


def test_it_sees_of_an_epsilon_of_eight_what_a_gaussian_shows(audited, settled):
    """The expected share of right guesses is that of the extremes of two Gaussians, their distance the job's."""
    job = audited.varied(privacy={"epsilon": 8.0})
    found = audited_as(job)
    sigma, rate, steps = found.noise_multiplier, 0.2, found.steps
    source = np.random.default_rng(1)
    present = np.arange(400_000) % 2 == 0
    scores = source.normal(0, sigma * steps**0.5, len(present)) + present * source.binomial(steps, rate, len(present))
    ranking = np.argsort(scores)
    expected = (present[ranking[-40_000:]].mean() + (~present[ranking[:40_000]]).mean()) / 2
    assert found.correct / found.guesses == pytest.approx(expected, abs=5 * (0.25 / 800) ** 0.5)
    assert 1 < found.lower_bound < 8


@pytest.fixture
def command(capsys, tmp_path, monkeypatch):
    """Runs insitu-sim audit on a job: (exit code, stdout, stderr)."""
    monkeypatch.setenv("COLUMNS", "200")  # a narrow table folds its headings

    def run(job, *options) -> tuple[int, str, str]:
        file = tmp_path / "job.toml"
        file.write_text(job.to_toml())
        with pytest.raises(SystemExit) as end:
            console.run(app, ["audit", str(file), *options])
        printed = capsys.readouterr()
        return end.value.code, printed.out, printed.err

    return run


@pytest.fixture
def of_eight(audited):
    """ε = 8: more than 1000 canaries could refute."""
    return audited.varied(privacy={"epsilon": 8.0})


def test_the_command_says_what_was_found_what_it_means_and_what_not(command, of_eight):
    code, printed, said = command(of_eight)
    assert code == 0
    assert "not refuted" in printed
    for heading in ("claimed ε", "lower bound at 95 %", "canaries", "guesses", "correct", "seconds"):
        assert heading in printed
    said = " ".join(said.split())
    assert accounting.CLAIM in said
    assert audit.SHOWS in said


def test_a_claim_that_is_refuted_is_exit_code_1(command, of_eight):
    code, printed, said = command(of_eight, "--claim", "0.01", "--canaries", "2000", "--confidence", "0.9", "--json")
    found = json.loads(printed)
    assert code == 1
    assert found["refuted"]
    assert (found["claim"], found["canaries"], found["confidence"]) == (0.01, 2000, 0.9)
    assert found["lower_bound"] > 0.01
    assert found["says"] == accounting.CLAIM
    assert found["shows"] == audit.SHOWS
    assert "job.toml: ε = 0.01 is refuted" in said


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--claim", "-1"), "claim"),
        (("--claim", "nan"), "claim"),
        (("--confidence", "1"), "confidence"),
        (("--canaries", "9"), "canaries"),
    ],
)
def test_numbers_that_cannot_be_are_named(command, of_eight, options, expected):
    code, _, said = command(of_eight, *options)
    assert code == 2
    assert expected in said


def test_a_job_that_claims_nothing_is_bad_input(command, job, audited):
    code, _, said = command(job)
    assert code == 2
    assert "job.toml: [privacy] mode" in said
    code, _, said = command(audited.varied(training={"local_steps": 0}))
    assert code == 2
    assert "local_steps" in said
    with pytest.raises(BadInput, match="epsilon"):
        audit.check(audited.varied(privacy={"epsilon": 1e-9}), file="job.toml")
