import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import BadInput
from shared.job import Job

MINIMAL = {
    "name": "lesions",
    "task": "segmentation",
    "classes": ["background", "lesion"],
    "images": {"size": [96, 128]},
    "network": {"name": "UNet"},
    "privacy": {"mode": "none"},
}


def with_(**sections):
    return Job.from_dict({**MINIMAL, **sections})


def test_defaults_spelled_out_have_the_same_digest():
    job = with_()
    assert Job.from_toml(job.to_toml()).digest == job.digest
    assert Job.from_dict(tomllib.loads(job.to_toml())) == job


def test_the_order_of_keys_and_the_spelling_of_numbers_do_not_change_the_digest():
    one = with_(
        privacy={"epsilon": 8, "delta": 1e-5},
        federation={"round_deadline": "2h", "rounds": 5},
        network={"name": "UNet", "dropout": 0},
    )
    other = with_(
        network={"dropout": 0.0, "name": "UNet"},
        federation={"rounds": 5, "round_deadline": "120m"},
        privacy={"mode": "patient", "delta": 0.00001, "epsilon": 8.0, "sample_rate": 0.05},
    )
    assert one.digest == other.digest


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"classes": ["background", "nodule"]},
        {"classes": ["lesion", "background"]},
        {"images": {"size": [128, 96]}},
        {"network": {"name": "UNet", "dropout": 0.1}},
        {"training": {"seed": 1}},
        {"privacy": {"epsilon": 8.0}},
        {"federation": {"rounds": 29}},
    ],
)
def test_another_meaning_is_another_digest(change):
    assert with_(**change).digest != with_().digest


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"task": "regression"}, "task"),
        ({"classes": ["background"]}, "classes"),
        ({"classes": ["Lesion", "lesion"]}, "classes"),
        ({"images": {"size": [96]}}, "[images] size"),
        ({"images": {"size": [96, 0]}}, "[images] size.1"),
        ({"images": {"size": [96, 128], "intensity": "window"}}, "images"),
        ({"images": {"size": [96, 128], "spacing": [1.0]}}, "images"),
        ({"images": {"size": [96, 128], "colour": 1}}, "[images] colour: unknown key"),
        ({"training": {"learning_rate": 0}}, "[training] learning_rate"),
        ({"training": {"local_steps": 3, "local_epochs": 1}}, "training"),
        ({"training": {"class_weights": [1.0]}}, "class_weights"),
        ({"training": {"views": 4}}, "training"),
        ({"training": {"views": 0, "augmentation": "light"}}, "[training] views"),
        ({"training": {"precision": "float16"}}, "[training] precision"),
        ({"privacy": {"mode": "none", "epsilon": 8}}, "privacy"),
        ({"privacy": {"epsilon": -1}}, "[privacy] epsilon"),
        ({"privacy": {"epsilon": 8}, "federation": {"weights": "patients"}}, "weights"),
        ({"federation": {"round_deadline": "soon"}}, "[federation] round_deadline"),
        ({"federation": {"round_deadline": "99999999999999d"}}, "[federation] round_deadline"),
        ({"federation": {"rounds": 0}}, "[federation] rounds"),
        ({"task": "classification", "training": {"loss": "dice"}}, "loss"),
        ({"network": {}}, "[network] name: is missing"),
        ({"unknown": 1}, "unknown: unknown key"),
    ],
)
def test_a_mistake_is_named_by_file_and_field(change, field):
    with pytest.raises(BadInput) as error:
        Job.from_dict({**MINIMAL, **change}, file="job.toml")
    assert str(error.value).startswith("job.toml: ")
    assert field in str(error.value)
    assert error.value.exit_code == 2


@pytest.mark.parametrize("text", ["x = " + "[" * 3000, "x = " + "9" * 5000, "x = [", "\0"])
def test_a_file_that_is_no_toml_is_said_to_be_none(text):
    with pytest.raises(BadInput, match=r"^job\.toml: not valid TOML"):
        Job.from_toml(text, file="job.toml")


def test_a_job_saved_with_a_byte_order_mark_is_the_same_job(tmp_path, job):
    (tmp_path / "job.toml").write_text(job.to_toml(), encoding="utf-8-sig")
    assert Job.load(tmp_path / "job.toml").digest == job.digest


def test_privacy_is_never_left_out_silently():
    data = {key: value for key, value in MINIMAL.items() if key != "privacy"}
    with pytest.raises(BadInput, match=r'mode = "none"'):
        Job.from_dict(data)


def test_views_go_with_an_augmentation():
    assert with_(training={"views": 4, "augmentation": "light"}).training.views == 4
    with pytest.raises(BadInput, match="views = 4 needs an augmentation"):
        with_(training={"views": 4})


@pytest.mark.parametrize(
    "loss", ["batch_dice", "generalized_dice", "contrastive", "focal", ["dice", "ce"], {"batch": 1}]
)
def test_a_loss_that_could_mix_patients_cannot_be_chosen(loss):
    with pytest.raises(BadInput, match=r"\[training\] loss"):
        with_(training={"loss": loss})


def test_a_window_chooses_its_intensity():
    assert with_(images={"size": [8, 8], "window": [40, 400]}).images.intensity == "window"


def test_epochs_under_privacy_are_a_public_number_of_steps():
    job = with_(privacy={"epsilon": 8, "sample_rate": 0.1}, training={"local_epochs": 2})
    assert job.steps_per_round == 20
    assert with_(training={"local_epochs": 2}).steps_per_round is None
    assert with_().steps_per_round == 25


def test_a_missing_or_broken_file_is_bad_input(tmp_path):
    with pytest.raises(BadInput, match="no such file"):
        Job.load(tmp_path / "job.toml")
    (tmp_path / "job.toml").write_text("name = ")
    with pytest.raises(BadInput, match="not valid TOML"):
        Job.load(tmp_path / "job.toml")
    (tmp_path / "job.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match="UTF-8"):
        Job.load(tmp_path / "job.toml")


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
nested = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
keys = st.sampled_from([*MINIMAL, "training", "federation", "other"])


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(keys, nested), st.booleans())
def test_anything_at_all_parses_or_is_bad_input(data, over_a_good_job):
    try:
        job = Job.from_dict({**MINIMAL, **data} if over_a_good_job else data)
    except BadInput:
        return
    assert Job.from_dict(tomllib.loads(job.to_toml())).digest == job.digest


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.text(max_size=4), nested, max_size=3))
def test_options_of_a_network_keep_their_digest_through_toml_or_are_bad_input(options):
    try:
        job = Job.from_dict({**MINIMAL, "network": {**options, "name": "UNet"}})
    except BadInput:
        return
    assert Job.from_toml(job.to_toml()).digest == job.digest


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200))
def test_any_text_parses_or_is_bad_input(text):
    with pytest.raises(BadInput):
        Job.from_toml(text)
