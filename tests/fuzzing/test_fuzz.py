"""The examples that `make fuzz` begins with are good ones, and what was found once is not found again."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from targets import TARGETS

FOUND = {
    "restore": [b'{"a":["arrays",[["a","f",[1e999],"n",0]],"b":[]]}'],
    "network": [
        json.dumps(["UNet", [16, 16], {"channels": [4, 8], "strides": [2], "num_res_units": 10**6}]).encode(),
        json.dumps(["UNet", [16, 16], {"strides": [2] * 400}]).encode(),
    ],
}


@pytest.fixture(params=TARGETS)
def name(request) -> str:
    return request.param


def test_every_example_is_parsed_whole_and_in_halves(name):
    target = TARGETS[name]
    examples = target.examples()
    assert examples
    assert all(len(example) <= target.longest for example in examples)
    with target.room():
        for example in [*examples, *FOUND.get(name, []), b"", b"\0", b"\xff" * 40]:
            target.one(example)
            target.one(example[: len(example) // 2])
