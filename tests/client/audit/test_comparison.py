"""A receipt that was changed, left out, signed by somebody else, or that says what the record does not, is found."""

import json
from functools import partial

import numpy as np
import pytest

from client.audit.comparison import compare, read
from client.audit.entries import Released
from server.receipts import NAME, Receipts
from server.store import RoundRow
from shared import identity
from shared.errors import BadInput
from shared.messages import Update, content_digest

MODEL = {"w": np.zeros(3, np.float32)}


def content(site: str, number: int) -> str:
    return content_digest(Update(round=number, model={"w": np.full(3, number + len(site), np.float32)}, numbers={}))


@pytest.fixture(scope="module")
def authority():
    return identity.new_authority("coordinator")


@pytest.fixture
def write(tmp_path, job, authority):
    server = identity.new_server_certificate(authority, "localhost")

    def make(rounds=3, signer=server, late=()):
        receipts = Receipts(
            tmp_path,
            job.varied(federation={"min_sites": 1}),
            "run-1",
            certificate=server.certificate_pem.decode(),
            sign=partial(identity.sign, signer.key),
        )
        for number in range(1, rounds + 1):
            there = ["north", "south"] if number not in late else ["south"]
            row = RoundRow(
                round=number,
                seconds=1.0,
                contributed=tuple(there),
                missing={"north": "late"} if number in late else {},
                numbers={},
                model="a" * 64,
                contributions={site: (content(site, number), 1.0) for site in there},
            )
            receipts.round_ended(row, MODEL, {})
        return tmp_path / NAME

    return make


@pytest.fixture
def released(job):
    digest = job.varied(federation={"min_sites": 1}).digest

    def entry(number, site="north", run="run-1"):
        return Released(
            message="Update",
            job=digest,
            name=job.name,
            run=run,
            round=number,
            private=False,
            content=content(site, number),
        )

    return entry


def faults(file, entries, authority) -> list[str]:
    return compare(read(file), entries, site="north", ca=authority.certificate_pem).faults


def test_receipts_of_what_left_agree_with_the_record(write, released, authority):
    compared = compare(
        read(write()), [released(number) for number in (1, 2, 3)], site="north", ca=authority.certificate_pem
    )
    assert compared.faults == []
    assert [(row["round"], row["standing"], row["agrees"]) for row in compared.rounds] == [
        (1, "contributed", True),
        (2, "contributed", True),
        (3, "contributed", True),
    ]


def test_an_update_that_came_late_is_said_to_be_missing_and_that_is_no_fault(write, released, authority):
    file = write(late=(2,))
    compared = compare(
        read(file), [released(number) for number in (1, 2, 3)], site="north", ca=authority.certificate_pem
    )
    assert compared.faults == []
    assert [row["standing"] for row in compared.rounds] == ["contributed", "late", "contributed"]


def test_what_is_said_to_be_contributed_and_never_left_is_found(write, released, authority):
    file = write()
    assert "nothing left here then" in faults(file, [released(1), released(3)], authority)[0]
    wrong = released(2).model_copy(update={"content": "b" * 64})
    assert "something else" in faults(file, [released(1), wrong, released(3)], authority)[0]


def test_a_round_without_a_receipt_is_found(write, released, authority):
    (found,) = faults(write(rounds=2), [released(number) for number in (1, 2, 3)], authority)
    assert found == "round 3: an update left here, and there is no receipt of that round"
    assert faults(write(rounds=2), [released(1), released(2), released(7, run="other")], authority) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: lines[:1] + lines[2:],
        lambda lines: [lines[1], lines[0], lines[2]],
        lambda lines: [
            lines[0],
            {**lines[1], "receipt": {**lines[1]["receipt"], "missing": {"west": "x"}}},
            lines[2],
        ],
        lambda lines: [lines[0], {**lines[1], "link": "0" * 64}, lines[2]],
        lambda lines: [lines[0], {**lines[1], "signature": lines[0]["signature"]}, lines[2]],
        lambda lines: [lines[0], {**lines[1], "signature": ""}, lines[2]],
        lambda lines: [lines[0], {**lines[1], "certificate": "nonsense"}, lines[2]],
    ],
    ids=["left out", "swapped", "changed", "another link", "another's signature", "unsigned", "no certificate"],
)
def test_receipts_that_were_changed_are_found(write, released, authority, change):
    file, entries = write(), [released(number) for number in (1, 2, 3)]
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps(line) + "\n" for line in change(lines)))
    assert faults(file, entries, authority)


def test_receipts_of_another_coordinator_are_found(write, released):
    found = faults(write(), [released(number) for number in (1, 2, 3)], identity.new_authority("other"))
    assert len(found) == 3
    assert all("not signed by the coordinator" in fault for fault in found)


def test_a_round_made_again_has_one_receipt(write, authority, released):
    write(rounds=2)
    file = write(rounds=3)
    assert [line.receipt.round for line in read(file)] == [1, 2, 3]
    assert faults(file, [released(number) for number in (1, 2, 3)], authority) == []


@pytest.mark.parametrize("text", ["", "{}", "nothing", '{"receipt": 1}', "\xff"])
def test_another_file_is_a_clear_mistake(tmp_path, text):
    file = tmp_path / "file"
    file.write_text(text)
    with pytest.raises(BadInput, match="receipts"):
        read(file)
    with pytest.raises(BadInput, match="no such file"):
        read(tmp_path / "nowhere")
