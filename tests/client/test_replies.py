"""Stored replies: the same question gets the same bytes, and only the last ones are kept."""

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from client import replies
from client.replies import KEPT_ANSWERS, KEPT_RUNS, Replies
from client.site import Site, SiteConfig
from shared.messages import EvaluateRequest, Figures, TrainRequest, Update

MODEL = {"w.2": np.array([[1.5, -0.0]], np.float32), "w.1": np.array(3.25, np.float32), "h": np.zeros(2, np.float16)}
REPLY = Update(round=1, model=MODEL, numbers={"dice": 0.1, "patients": 12.0})


@pytest.fixture
def stored(tmp_path) -> Replies:
    return Replies(Site.create(tmp_path / "home", SiteConfig(name="north")))


def ask(job, *, round=1, run="run", kind=TrainRequest):
    return kind(job=job, run=run, round=round, model=MODEL)


def packed(reply) -> list:
    """Everything that would leave, with the order of the arrays."""
    records = reply.pack()
    model = [(name, a.dtype, a.shape, a.data) for name, a in records["model"].items()] if "model" in records else []
    return [dict(records["config"]), dict(records["numbers"]), model]


def files(folder) -> list:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("private", [False, True])
def test_the_same_bytes_come_back(stored, job, private_job, private, tmp_path):
    of = private_job if private else job
    stored.keep(ask(of), "m", REPLY)
    stored.keep(ask(of, kind=EvaluateRequest), "m", Figures(numbers={"dice": 0.25}))
    again = Replies(Site.open(tmp_path / "home"))
    assert packed(again.find(ask(of), "m")) == packed(REPLY)
    assert again.find(ask(of, kind=EvaluateRequest), "m") == Figures(numbers={"dice": 0.25})


def test_another_question_has_another_answer(stored, job, private_job):
    stored.keep(ask(job), "m", REPLY)
    others = [ask(job, round=2), ask(job, run="other"), ask(private_job), ask(job, kind=EvaluateRequest)]
    assert [stored.find(request, "m") for request in others] == [None] * 4
    assert stored.find(ask(job), "n") is None


def test_only_the_last_answers_of_the_last_runs_are_kept(stored, job, tmp_path):
    for number in range(1, KEPT_ANSWERS + 4):
        stored.keep(ask(job, round=number), "m", REPLY)
        for age, file in enumerate(files(tmp_path / "home" / "replies")):
            os.utime(file, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns - age))
    assert len(files(tmp_path / "home" / "replies")) == KEPT_ANSWERS
    assert stored.find(ask(job, round=KEPT_ANSWERS + 3), "m") is not None
    assert stored.find(ask(job, round=1), "m") is None
    for number in range(KEPT_RUNS + 3):
        stored.keep(ask(job, run=f"run-{number}"), "m", REPLY)
    assert len(list((tmp_path / "home" / "replies").iterdir())) == KEPT_RUNS
    assert stored.find(ask(job, run=f"run-{KEPT_RUNS + 2}"), "m") is not None


@pytest.mark.parametrize(
    "spoil", [lambda data: b"", lambda data: data[:50], lambda data: b"{}" * 9, lambda data: data[:-1]]
)
def test_a_damaged_answer_is_no_answer(stored, job, tmp_path, spoil):
    stored.keep(ask(job), "m", REPLY)
    (file,) = files(tmp_path / "home" / "replies")
    file.write_bytes(spoil(file.read_bytes()))
    assert stored.find(ask(job), "m") is None
    assert stored.find(ask(job), "m") is None


def test_only_the_owner_may_read_them(stored, private_job, tmp_path):
    stored.keep(ask(private_job), "m", REPLY)
    (file,) = files(tmp_path / "home" / "replies")
    assert file.stat().st_mode & 0o077 == 0


dtypes = st.sampled_from([np.float16, np.float32, np.float64])
models = st.dictionaries(
    st.text(min_size=1, max_size=20),
    dtypes.flatmap(lambda dtype: arrays_of.arrays(dtype, arrays_of.array_shapes(min_dims=0, max_dims=4, max_side=3))),
    max_size=5,
)


@settings(max_examples=40, deadline=None)
@given(models, st.integers(0, 2**40), st.dictionaries(st.sampled_from(["dice", "loss"]), st.floats(allow_nan=False)))
def test_any_reply_comes_back_bit_for_bit(model, number, numbers):
    reply = Update(round=number, model=model, numbers=numbers)
    again = replies.read(replies._bytes(reply))
    assert packed(again) == packed(reply)
