"""Whatever a coordinator sends, a site answers with one of its replies, and its disk does not fill up."""

import json
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from client import egress, logs, work
from client.site import Approval, Policy, Site, SiteConfig
from shared import flat
from shared.errors import RefusalCode
from shared.job import Job
from shared.messages import PROTOCOL, EvaluateRequest, Offer, Refusal, TrainRequest

KINDS = (Offer, TrainRequest, EvaluateRequest)
JOB = Job.from_dict(
    {"name": "any", "task": "segmentation", "classes": ["a", "b"], "images": {"size": [16, 16]}}
    | {"network": {"name": "UNet"}, "privacy": {"mode": "none"}}
)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Site:
    config = SiteConfig(
        name="north",
        device="cpu",
        durable=False,
        policy=Policy(privacy_required=False, min_sites=1, threads=1),
        approve=(Approval(),),
    )
    return Site.create(tmp_path_factory.mktemp("malformed") / "north", config)


numbers = st.integers(-(2**63), 2**63 - 1) | st.floats()
scalars = numbers | st.text(max_size=30) | st.binary(max_size=30) | st.booleans()
texts = st.sampled_from(
    [JOB.canonical(), JOB.digest, "run-1", "Offer", "TrainRequest", "{}", "[" * 5000, "\0", "1e999"]
)
fields = st.sampled_from(["protocol", "kind", "job", "digest", "run", "round", "other"])
configs = st.dictionaries(fields, texts | scalars | st.just(PROTOCOL), max_size=7).map(ConfigRecord)
right = st.sampled_from(KINDS).map(
    lambda kind: ConfigRecord(
        {"protocol": PROTOCOL, "kind": kind.__name__, "job": JOB.canonical(), "digest": JOB.digest, "run": "run-1"}
        | ({} if kind is Offer else {"round": 1})
    )
)
arrays = st.builds(
    Array,
    dtype=st.sampled_from(["float32", "object", "float999", ""]),
    shape=st.lists(st.integers(-2, 2**62), max_size=3).map(tuple),
    stype=st.sampled_from(["numpy.ndarray", "torch", ""]),
    data=st.binary(max_size=80) | st.just(Array(np.ones(3, np.float32)).data),
)
records = (
    configs
    | right
    | st.dictionaries(st.text(max_size=8), numbers, max_size=3).map(MetricRecord)
    | st.dictionaries(st.text(max_size=8), arrays, max_size=3).map(ArrayRecord)
)
names = st.sampled_from(["config", "model", "numbers", "other"])


def size(folder: Path, *, logs: bool) -> int:
    files = [file for file in folder.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files if (file.parent.name == "log") == logs)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(KINDS), st.dictionaries(names, records, max_size=4).map(RecordDict))
def test_any_records_get_a_reply_and_no_exception(site, kind, content):
    reply = work.answer(site.home, kind, content)
    assert isinstance(reply, Refusal), "nothing is registered here that could be trained on"
    assert flat.restore(flat.flatten(egress.packed(reply)))["config"]["code"] == reply.code


@given(st.none() | st.integers() | st.text() | st.lists(st.integers()))
def test_what_are_no_records_at_all_is_malformed(site, content):
    assert work.answer(site.home, Offer, content) == Refusal(code=RefusalCode.MALFORMED)


def test_a_flood_of_malformed_messages_does_not_grow_the_home(site):
    def send(first: int) -> None:
        for number in range(first, first + 300):
            config = ConfigRecord(
                {"protocol": PROTOCOL, "kind": "Offer", "job": f"{number}" * 1000, "run": f"{number}"}
            )
            config["digest"] = f"{number}"
            assert isinstance(work.answer(site.home, Offer, RecordDict({"config": config})), Refusal)

    send(0)
    before, said = size(site.home, logs=False), size(site.home, logs=True)
    send(1000)
    assert size(site.home, logs=False) - before < 4096
    assert size(site.home, logs=True) - said < 300 * logs.LONGEST_LINE


def test_a_flood_of_jobs_that_are_each_another_one_is_bounded(site):
    """Each is read whole and refused: nothing is registered. What is remembered of them is limited in number."""

    def send(first: int) -> None:
        for number in range(first, first + 150):
            job = JOB.model_copy(update={"name": f"job-{number}"})
            content = Offer(job=Job.from_dict(json.loads(job.canonical())), run="run-1").pack()
            assert work.answer(site.home, Offer, content) == Refusal(code=RefusalCode.NO_DATASET)

    send(0)
    before = size(site.home, logs=False)
    send(1000)
    assert size(site.home, logs=False) - before < 64 * 1024
