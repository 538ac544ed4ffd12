"""What a researcher types, and what they are told when it is wrong."""

import csv
import json
import shutil

import pytest
from PIL import Image

from shared import console
from simulations.cli import app


@pytest.fixture
def command(capsys):
    """Runs insitu-sim in this process: (exit code, stdout, stderr)."""

    def run(*arguments) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            console.run(app, [str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return end.value.code, printed.out, printed.err

    return run


@pytest.fixture
def job_file(job, tmp_path):
    file = tmp_path / "job.toml"
    file.write_text(job.to_toml())
    return file


@pytest.fixture
def data(hospitals, tmp_path):
    """A copy of the hospitals to spoil."""
    return shutil.copytree(hospitals, tmp_path / "data")


def test_run_leaves_a_summary_a_model_events_and_a_report(command, job_file, hospitals, tmp_path):
    out = tmp_path / "out"
    code, printed, _ = command("run", job_file, "--data", hospitals, "--out", out, "--json")
    assert code == 0
    summary = json.loads((out / "summary.json").read_text())
    assert json.loads(printed) == summary
    assert set(summary["sites"]) == {"east", "north", "south"}
    for site in summary["sites"].values():
        assert sum(site["patients"].values()) == 40
        assert 0 <= site["before"]["dice"] <= 1
        assert 0 <= site["after"]["dice"] <= 1
        assert site["privacy"] is None
    assert [row["contributed"] for row in summary["rounds"]] == [["east", "north", "south"]] * 2
    assert "arms" not in summary
    assert (out / "model.safetensors").stat().st_size > 0
    assert (out / "report.html").read_text().startswith("<!")
    assert list((out / "events").glob("events.*"))


def test_compare_trains_every_arm(command, private_job, job_file, hospitals, tmp_path):
    job_file.write_text(private_job.to_toml())
    out = tmp_path / "out"
    code, printed, _ = command("compare", job_file, "--data", hospitals, "--out", out)
    assert code == 0
    summary = json.loads((out / "summary.json").read_text())
    alone = {f"alone:{site}" for site in ("east", "north", "south")}
    assert set(summary["arms"]) == alone | {"pooled", "pooled-total", "federated", "federated-private"}
    for arm in summary["arms"].values():
        assert set(arm["sites"]) == {"east", "north", "south"}
        assert arm["worst"]["dice"] == min(site["dice"] for site in arm["sites"].values())
    for site in summary["sites"].values():
        assert 0 < site["privacy"]["epsilon"] <= 8
    assert "federated-private" in printed
    assert "one patient" in printed or "patient" in printed


def test_networks_and_algorithms_are_listed(command):
    code, printed, _ = command("networks", "--json")
    assert code == 0
    assert {"UNet", "DenseNet121"} <= {row["name"] for row in json.loads(printed)}
    code, printed, _ = command("algorithms", "--json")
    assert [row["name"] for row in json.loads(printed)] == ["fedavg", "fedavgm"]


def bad(command, job_file, data, tmp_path) -> str:
    code, _, error = command("run", job_file, "--data", data, "--out", tmp_path / "out")
    assert code == 2, error
    assert "Traceback" not in error
    return error


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('name = "UNet"', 'name = "WNet"', "WNet"),
        ("strides", "stride", "stride"),
        ('algorithm = "fedavg"', 'algorithm = "fedmagic"', "fedmagic"),
        ("16,\n", "17,\n", "17"),
        ('task = "segmentation"', 'task = "counting"', "counting"),
        ("secure_aggregation = false", "secure_aggregation = true", "secure_aggregation"),
        ("local_steps", "local_stops", "local_stops"),
    ],
)
def test_a_wrong_job_is_named_by_field_before_any_data_is_read(
    command, job_file, hospitals, tmp_path, old, new, expected
):
    text = job_file.read_text()
    assert old in text
    job_file.write_text(text.replace(old, new))
    error = bad(command, job_file, hospitals, tmp_path)
    assert "job.toml" in error
    assert expected in error
    assert not (tmp_path / "out").exists()


def test_a_missing_or_empty_data_folder_is_named(command, job_file, tmp_path):
    assert "nowhere" in bad(command, job_file, tmp_path / "nowhere", tmp_path)
    (tmp_path / "empty").mkdir()
    assert "empty" in bad(command, job_file, tmp_path / "empty", tmp_path)


def test_a_hospital_without_images_is_named(command, job_file, data, tmp_path):
    (data / "west").mkdir()
    assert "west" in bad(command, job_file, data, tmp_path)


def test_classes_that_disagree_with_the_labels_are_named(command, job, job_file, data, tmp_path):
    with (data / "north" / "manifest.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["patient", "image", "label"], ["p", "0.png", "odd"], ["q", "1.png", "normal"]])
    for name in ("east", "south"):
        shutil.rmtree(data / name)
    classification = {"task": "classification", "classes": ["normal", "nodule"], "network": {"name": "ResNet18"}}
    images = {"size": [32, 32]}
    job_file.write_text(
        type(job).from_dict({**job.model_dump(exclude_none=True), **classification, "images": images}).to_toml()
    )
    error = bad(command, job_file, data, tmp_path)
    assert "north" in error
    assert "1 images is none of the classes" in error
    assert "odd" not in error  # what labels are called is not for logs; `data show` has it


def test_a_mask_value_outside_the_classes_is_named(command, job_file, data, tmp_path):
    file = data / "north" / "3-mask.png"
    mask = Image.open(file)
    mask.putpixel((0, 0), 7)
    mask.save(file)
    error = bad(command, job_file, data, tmp_path)
    assert "north" in error
    assert "7" in error


def test_what_is_left_out_is_said_and_counted(command, job_file, data, tmp_path):
    files = list((data / "north").glob("*.png"))
    for number in (3, 4):
        file = data / "north" / f"{number}.png"
        file.write_bytes(file.read_bytes()[:60])
    code, printed, error = command("run", job_file, "--data", data, "--out", tmp_path / "out")
    assert code == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["sites"]["north"]["files"] == {"used": len(files) - 4, "left_out": 4}  # the masks have no image
    assert summary["sites"]["east"]["files"]["left_out"] == 0
    assert "north: 4 of 80 files left out" in error
    assert "3.png" in error
    assert "files left out" in " ".join(printed.split())
    assert "4 files left out" in (tmp_path / "out" / "report.html").read_text()


def test_an_out_folder_among_the_hospitals_is_refused(command, job_file, data):
    code, _, error = command("run", job_file, "--data", data, "--out", data / "out")
    assert code == 2
    assert "is inside" in error
    assert not (data / "out").exists()


def test_an_out_folder_in_use_is_left_as_it_is(command, job_file, hospitals, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "precious.txt").write_text("mine")
    assert "not empty" in bad(command, job_file, hospitals, tmp_path)
    assert [file.name for file in out.iterdir()] == ["precious.txt"]
