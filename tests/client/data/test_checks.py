from dataclasses import replace

import pytest

from client.data.checks import findings
from client.data.records import Item, LeftOut, Picture


def item(number, **changes):
    picture = Picture(
        shape=(10, 10),
        channels=1,
        affine=((0.5, 0, 0), (0, 0.5, 0), (0, 0, 1)),
        minimum=0.0,
        maximum=9.0,
        fingerprint=f"f{number}",
    )
    of_picture = {key: changes.pop(key) for key in list(changes) if key in Picture.__dataclass_fields__}
    base = Item(
        patient=f"p{number}",
        split=("train", "validation", "test")[number % 3],
        kind="picture",
        files=(f"{number}.png",),
        picture=replace(picture, **of_picture),
        masks=(f"m{number}.png",),
        indices={0: 80, 1: 20},
    )
    return replace(base, **changes)


SOUND = [item(number) for number in range(18)]


def found(items, **more):
    arguments = {"mapping": {}, "notes": [], "left_out": [], "elsewhere": {}, **more}
    return findings(items, **arguments)


def test_a_sound_dataset_has_no_findings():
    assert found(SOUND) == []


@pytest.mark.parametrize(
    ("change", "severity", "what"),
    [
        ({"patient": "p1"}, "error", "patient-in-two-splits"),
        ({"fingerprint": "f1"}, "error", "copies"),
        ({"fingerprint": "f3"}, "warning", "copies"),
        ({"patient": "p3", "fingerprint": "f3"}, "warning", "copies"),
        ({"minimum": 9.0}, "warning", "constant-image"),
        ({"affine": ((50.0, 0, 0), (0, 50.0, 0), (0, 0, 1))}, "warning", "spacing"),
        ({"channels": 3}, "warning", "mixed"),
        ({"indices": {0: 100}}, "warning", "empty-mask"),
        ({"indices": {1: 100}}, "warning", "full-mask"),
        ({"indices": {0: 90, 1: 9, 255: 1}}, "error", "label-values"),
        ({"indices": {0: 90, -1: 10}}, "error", "label-values"),
        ({"indices": {0: 90, 5: 10}}, "warning", "label-values"),
    ],
)
def test_what_is_wrong_with_one_image_is_found(change, severity, what):
    result = found([item(18, **change), *SOUND])
    assert [(one.severity, one.what) for one in result] == [(severity, what)]


def test_black_and_white_masks_are_no_finding():
    assert found([replace(one, indices={0: 80, 255: 20}) for one in SOUND]) == []


def test_few_patients_in_a_split_are_found():
    result = found(SOUND[:9])
    assert [one.what for one in result] == ["few-patients"] * 3
    assert {one.severity for one in result} == {"warning"}


def test_a_patient_in_another_split_of_another_dataset_is_found():
    (one,) = found(SOUND, elsewhere={"p0": {"test"}, "p1": {"validation"}})
    assert (one.severity, one.what) == ("warning", "patient-in-two-splits")


def test_a_mapping_of_a_label_that_does_not_occur_is_found():
    (one,) = found(SOUND, mapping={"Liver": "organ"})
    assert "'Liver'" in one.text


def test_notes_and_left_out_files_are_passed_on_and_errors_come_first():
    result = found([item(18, patient="p1"), *SOUND], notes=["look here"], left_out=[LeftOut("a.dcm", "damaged")])
    assert [one.what for one in result] == ["patient-in-two-splits", "note", "left-out"]
    assert result[-1].files == ("a.dcm",)
