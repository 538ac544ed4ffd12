import contextlib
import csv
import io
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.data.manifest import parse, parse_labels
from shared.errors import BadInput

PATIENT = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1).filter(lambda text: text.strip() == text)
SPLITS = {"training": "train", "train": "train", "validation": "validation", "Test": "test", "": None}


@pytest.fixture
def folder(tmp_path):
    for name in ("a.png", "b.png", "c.png", "m.png"):
        (tmp_path / name).write_bytes(b"")
    return tmp_path


def write(folder, text):
    path = folder / "manifest.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_rows_are_read_with_paths_beside_the_manifest(folder):
    path = write(folder, f"patient,image,mask,split\nP1,a.png,m.png,training\nP2,{folder / 'b.png'},m.png,\n")
    first, second = parse(path)
    assert (first.patient, first.image, first.mask, first.split) == ("P1", folder / "a.png", folder / "m.png", "train")
    assert (second.number, second.image, second.split) == (3, folder / "b.png", None)


def test_a_byte_order_mark_and_blank_lines_do_no_harm(folder):
    (folder / "manifest.csv").write_bytes(b"\xef\xbb\xbfpatient,image,label\r\n\r\nP1,a.png,benign\r\n,,\r\n")
    (row,) = parse(folder / "manifest.csv")
    assert (row.number, row.label) == (3, "benign")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        ("patient,image,mask\n", "no rows"),
        ("patient,image\nP1,a.png\n", "row 1: there is neither a column 'mask' nor a column 'label'"),
        ("image,mask\na.png,m.png\n", "row 1: there is no column 'patient'"),
        ("patient,image,mask,spilt\nP1,a.png,m.png,test\n", "row 1: unknown column 'spilt'"),
        ("patient;image;mask\nP1;a.png;m.png\n", "row 1: unknown column"),
        ("patient,image,image\nP1,a.png,a.png\n", "row 1: two columns"),
        ("patient,image,mask\n,a.png,m.png\n", "row 2, column patient: is empty"),
        ("patient,image,mask\nP1,a.png,\n", "row 2, column mask: is empty"),
        ("patient,image,mask\nP1,a.png,m.png\nP2,b.png\n", "row 3: has 2 columns, expected 3"),
        ("patient,image,mask\nP1,a.png,m.png\nP2,gone.png,m.png\n", "row 3, column image: no such file"),
        ("patient,image,mask\nP1,a.png,gone.png\n", "row 2, column mask: no such file"),
        ("patient,image,mask,split\nP1,a.png,m.png,holdout\n", "row 2, column split: expected training"),
        ("patient,image,mask\nP1,a.png,m.png\nP2,a.png,m.png\n", "row 3, column image: the same image as in row 2"),
        ('patient,image,mask\nP1,"a.png,m.png\n', "not a CSV"),
    ],
)
def test_what_is_wrong_is_said_with_file_row_and_column(folder, text, said):
    with pytest.raises(BadInput) as wrong:
        parse(write(folder, text))
    assert "manifest.csv" in str(wrong.value)
    assert said in str(wrong.value)


def test_no_patient_is_quoted_in_a_message(folder):
    with pytest.raises(BadInput) as wrong:
        parse(write(folder, "patient,image,mask,split\nJane Doe,gone.png,m.png,never\n"))
    assert "Jane" not in str(wrong.value)


def test_of_many_mistakes_the_first_five_are_said(folder):
    with pytest.raises(BadInput, match=r"row 6.*and 2 more") as wrong:
        parse(write(folder, "patient,image,mask\n" + ",a.png,m.png\n" * 7))
    assert "row 7" not in str(wrong.value)


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.tuples(PATIENT, st.sampled_from(sorted(SPLITS)), PATIENT), min_size=1, max_size=5))
def test_what_a_spreadsheet_writes_is_read_back(rows):
    with tempfile.TemporaryDirectory() as place:
        text = io.StringIO(newline="")
        table = csv.writer(text)
        table.writerow(["split", "label", "image", "patient"])
        for number, (patient, split, label) in enumerate(rows):
            (Path(place) / f"{number}.png").write_bytes(b"")
            table.writerow([split, label, f"{number}.png", patient])
        path = Path(place) / "manifest.csv"
        path.write_text(text.getvalue(), encoding="utf-8", newline="")
        found = [(row.patient, row.split, row.label) for row in parse(path)]
        assert found == [(patient, SPLITS[split], label) for patient, split, label in rows]


@settings(max_examples=150, deadline=None)
@given(
    content=st.one_of(st.binary(max_size=200), st.text(max_size=200).map(lambda text: text.encode(errors="replace")))
)
@pytest.mark.parametrize("header", [b"", b"patient,image,mask,split\n"])
@pytest.mark.parametrize("parser", [parse, parse_labels])
def test_whatever_is_in_the_file_it_is_rows_or_bad_input(parser, header, content):
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "manifest.csv"
        path.write_bytes(header + content)
        with contextlib.suppress(BadInput):
            assert parser(path)


def test_labels_are_read_by_series_or_by_patient(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("SeriesInstanceUID,label\n1.2.3,benign\n1.2.4,malignant\n")
    assert parse_labels(path).labels == {"1.2.3": "benign", "1.2.4": "malignant"}
    path.write_text("PatientID,age,label\nP1,30,benign\nP1,31,benign\n")
    assert parse_labels(path).key == "PatientID"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("SeriesUID,label\n1.2,benign\n", "row 1: expected the columns"),
        ("PatientID,label\nP1,\n", "row 2, column label: is empty"),
        ("PatientID,label\nP1,benign\nP1,malignant\n", "row 3, column label: an earlier row"),
    ],
)
def test_a_wrong_table_of_labels_is_refused(tmp_path, text, said):
    path = tmp_path / "labels.csv"
    path.write_text(text)
    with pytest.raises(BadInput, match=said):
        parse_labels(path)
