import json

import numpy as np
import pytest
import scans

from client.data.cli import app, parse_mapping
from shared.console import run
from shared.errors import BadInput


@pytest.fixture
def insitu(site, monkeypatch, capsys):
    """Run `insitu-client data …` on a home: exit code, stdout, stderr."""
    monkeypatch.setenv("INSITU_HOME", str(site.home))

    def command(*arguments):
        with pytest.raises(SystemExit) as end:
            run(app, [str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return end.value.code, captured.out, captured.err

    return command


def test_add_list_show_and_check(insitu, tmp_path):
    folder = scans.pictures(tmp_path / "png", 40)
    scans.damage(folder / "i0-0.png")
    code, out, err = insitu("add", "skin", folder)
    assert code == 0
    assert "40" in out
    assert "damaged" in out
    assert "reading skin" in err
    code, out, _ = insitu("list")
    assert code == 0
    assert "skin" in out
    code, out, _ = insitu("show", "skin", "--json")
    shown = json.loads(out)
    assert shown["files"] == {"used": 158, "left_out": 2}
    assert shown["left_out"][0]["reason"].startswith("damaged")
    code, out, _ = insitu("check", "skin")
    assert code == 0
    assert "left out" in out


def test_check_exits_with_1_where_training_would_be_wrong(insitu, tmp_path):
    folder = scans.pictures(tmp_path / "png", 3)
    text = (folder / "manifest.csv").read_text().splitlines()
    rows = [f"{line},{split}" for line, split in zip(text, ["split", "test", "training", *[""] * 4], strict=True)]
    (folder / "manifest.csv").write_text("\n".join(rows))
    assert insitu("add", "skin", folder)[0] == 0
    code, out, _ = insitu("check", "skin", "--json")
    assert code == 1
    assert json.loads(out)[0]["what"] == "patient-in-two-splits"


def test_labels_and_their_classes_are_given_on_the_command_line(insitu, tmp_path):
    for number in range(3):
        pixels = np.full((8, 8), number, dtype=np.uint8)
        scans.save(scans.dataset(f"P{number}", pixels, Modality="DX"), tmp_path / "dx" / f"{number}.dcm")
    (tmp_path / "labels.csv").write_text("PatientID,label\nP0,mel\nP1,nv\nP2,nv\n")
    arguments = ("--labels", tmp_path / "labels.csv", "--map", "mel=malignant", "--map", "nv=benign", "--json")
    code, out, _ = insitu("add", "dx", tmp_path / "dx", *arguments)
    assert code == 0
    assert json.loads(out)["mapping"] == {"mel": "malignant", "nv": "benign"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("add", "x", "{tmp}/gone"), "no such file or folder"),
        (("add", "x", "{tmp}"), "nothing in it can be used"),
        (("add", "x", "{tmp}", "--map", "liver"), "label=class"),
        (("add", "x", "{tmp}", "--labels", "{tmp}/gone.csv"), "no such file"),
        (("show", "x"), "there is no dataset"),
        (("check", "x"), "there is no dataset"),
        (("list", "--home", "{tmp}"), "no site.toml"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(insitu, tmp_path, arguments, said):
    code, out, err = insitu(*(argument.format(tmp=tmp_path) for argument in arguments))
    assert code == 2
    assert out == ""
    assert said in err
    assert "Traceback" not in err


def test_a_mapping_may_hold_spaces_and_needs_both_sides():
    assert parse_mapping([" Liver tumor = lesion "]) == {"Liver tumor": "lesion"}
    for wrong in ("a", "=b", "a="):
        with pytest.raises(BadInput):
            parse_mapping([wrong])
