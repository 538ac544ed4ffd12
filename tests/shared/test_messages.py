import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st

from shared import messages
from shared.errors import RefusalCode, Refused
from shared.job import Job
from shared.messages import Accepted, EvaluateRequest, Figures, Offer, Refusal, TrainRequest, Update, read_reply

MODEL = {"conv.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "conv.bias": np.zeros(2, np.float32)}


def refused(records, kind=TrainRequest):
    with pytest.raises(Refused) as refusal:
        kind.unpack(records)
    return refusal.value.code


@pytest.fixture
def request_records(job: Job) -> RecordDict:
    return TrainRequest(job=job, run="run-1", round=2, model=MODEL).pack()


def test_every_message_survives_the_wire(job):
    train = TrainRequest.unpack(TrainRequest(job=job, run="run-1", round=2, model=MODEL).pack())
    assert (train.job, train.run, train.round) == (job, "run-1", 2)
    assert all(np.array_equal(train.model[name], MODEL[name]) for name in MODEL)
    assert Offer.unpack(Offer(job=job, run="run-1").pack()).digest == job.digest
    assert EvaluateRequest.unpack(EvaluateRequest(job=job, run="r", round=1, model=MODEL).pack()).round == 1
    assert Accepted.unpack(Accepted().pack()) == Accepted()
    update = Update.unpack(Update(round=2, model=MODEL, numbers={"dice": 0.5, "dice.2": 0.25}).pack())
    assert update.numbers == {"dice": 0.5, "dice.2": 0.25}
    assert Figures.unpack(Figures(numbers={}).pack()).numbers == {}
    for code in RefusalCode:
        assert Refusal.unpack(Refusal(code=code).pack()).code is code


def test_a_refusal_is_read_whatever_was_expected():
    for expected in (Accepted, Update, Figures):
        assert read_reply(Refusal(code=RefusalCode.TASK).pack(), expected) == Refusal(code=RefusalCode.TASK)


def test_an_extra_record_field_or_kind_is_malformed(request_records):
    extra_record = RecordDict({**request_records, "more": ConfigRecord({})})
    assert refused(extra_record) is RefusalCode.MALFORMED
    assert refused(request_records, EvaluateRequest) is RefusalCode.MALFORMED
    request_records["config"]["seed"] = 7
    assert refused(request_records) is RefusalCode.MALFORMED


def test_another_protocol_version_is_refused_as_such(request_records):
    request_records["config"]["protocol"] = messages.PROTOCOL + 1
    assert refused(request_records) is RefusalCode.PROTOCOL


def test_a_job_altered_under_its_digest_is_malformed(request_records, job):
    request_records["config"]["job"] = job.varied(training={"seed": 5}).canonical()
    assert refused(request_records) is RefusalCode.MALFORMED


@pytest.mark.parametrize("value", [np.array([np.nan], np.float32), np.array([1]), np.array([1j])])
def test_arrays_must_be_finite_and_floating(request_records, value):
    request_records["model"] = ArrayRecord({"w": Array(value)})
    assert refused(request_records) is RefusalCode.MALFORMED


@pytest.mark.parametrize(
    "numbers", [{"patient_4711": 1.0}, {"dice": float("nan")}, {"dice.x": 0.1}, {"dice": [0.1, 0.2]}]
)
def test_only_listed_finite_numbers_are_read(numbers):
    records = Figures(numbers={}).pack()
    records["numbers"] = MetricRecord(numbers)
    assert refused(records, Figures) is RefusalCode.MALFORMED


def test_a_negative_round_is_malformed(request_records):
    request_records["config"]["round"] = -1
    assert refused(request_records) is RefusalCode.MALFORMED


def code_of(kind, records):
    try:
        kind.unpack(records)
    except Refused as refusal:
        return refusal.code
    return None


values = st.none() | st.integers(-(2**31), 2**31) | st.floats() | st.text(max_size=12) | st.binary(max_size=12)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from(["protocol", "kind", "job", "digest", "run", "round", "x"]), values))
def test_any_config_is_read_or_refused_with_a_code(config):
    records = RecordDict({"config": ConfigRecord({k: v for k, v in config.items() if v is not None})})
    for kind in (Offer, Accepted, Refusal):
        assert code_of(kind, records) in (None, RefusalCode.MALFORMED, RefusalCode.PROTOCOL)
