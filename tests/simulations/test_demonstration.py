"""What `make demo` shows, shown here: phantom hospitals, written as DICOM, that learn under privacy."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PRIVATE = "federated-private"


def sim(*arguments: object) -> dict:
    """Run an `insitu-sim` command; the JSON it prints."""
    done = subprocess.run(
        [Path(sys.executable).with_name("insitu-sim"), *map(str, arguments), "--json"],
        capture_output=True,
        text=True,
        timeout=540,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.federation
def test_real_daemons_of_three_hospitals_learn_a_model_better_than_each_ones_own_on_the_mean(tmp_path):
    summary = sim("demo", "--processes", "--out", tmp_path / "demo")
    assert summary["engine"] == "processes"
    assert [row["contributed"] for row in summary["rounds"]] == [["north", "south", "west"]] * 10
    for site in summary["sites"].values():
        assert 7 < site["privacy"]["epsilon"] <= 8
        assert site["privacy"]["delta"] == 1e-4
        assert site["after"]["dice"] > site["before"]["dice"] + 0.3
    arms = summary["arms"]
    assert set(arms) == {PRIVATE, "alone:north", "alone:south", "alone:west"}
    for name, arm in arms.items():
        # Each hospital's own model is worse abroad; the federated one is better than each of them on the mean.
        if name != PRIVATE:
            home = name.removeprefix("alone:")
            assert all(arm["sites"][home]["dice"] > dice["dice"] for site, dice in arm["sites"].items() if site != home)
            assert arms[PRIVATE]["mean"]["dice"] > arm["mean"]["dice"]
    for left in ("summary.json", "model.safetensors", "report.html", "data/north", "job.toml"):
        assert (tmp_path / "demo" / left).exists(), left


def test_three_hospitals_learn_a_classification_under_privacy(tmp_path):
    done = subprocess.run(
        [
            *(Path(sys.executable).with_name("insitu-sim"), "phantoms", tmp_path / "data"),
            *("--sites", "3", "--patients", "130", "--task", "classification"),
        ],
        capture_output=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    job = tmp_path / "data" / "job.toml"
    summary = sim("run", job, "--data", tmp_path / "data", "--out", tmp_path / "out")
    for site in summary["sites"].values():
        assert 7 < site["privacy"]["epsilon"] <= 8
    assert summary["mean"]["auroc"] > 0.75
