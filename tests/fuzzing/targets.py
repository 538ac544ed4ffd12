"""The parsers that read what somebody else has written, each with good examples to begin with."""

import contextlib
import json
import os
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from flwr.app import Array, ConfigRecord, RecordDict

from client.data import dicom, manifest
from client.data.records import LeftOut
from client.site import Approval, Coordinator, DatasetRules, Policy, Site, SiteConfig
from shared import flat, networks, npy
from shared.errors import BadInput, Refused
from shared.job import Job
from shared.messages import (
    Accepted,
    EvaluateRequest,
    Figures,
    Offer,
    Refusal,
    RefusalCode,
    TrainRequest,
    Update,
    read_reply,
)

sys.path.insert(0, str(Path(__file__).parents[1] / "client" / "data"))
import scans

JOBS = sorted((Path(__file__).parents[2] / "simulations" / "jobs").glob("*.toml"))
DTYPES = ("float32", "float64", "float16", "int64", "bool")
_folder = Path(os.devnull)


@dataclass(frozen=True)
class Target:
    """A parser.

    Attributes:
        one: parses an input; raises what the parser must not raise.
        examples: good inputs.
        longest: an input, in bytes.
    """

    one: Callable[[bytes], None]
    examples: Callable[[], list[bytes]]
    longest: int = 4096

    @contextlib.contextmanager
    def room(self) -> Iterator[None]:
        """A folder for those that read files."""
        global _folder
        shared_memory = Path("/dev/shm")
        with tempfile.TemporaryDirectory(dir=shared_memory if shared_memory.is_dir() else None) as folder:
            _folder = Path(folder)
            yield


def _pieces(data: bytes) -> RecordDict:
    """One piece, of a header and, after a line's end, the arrays' data: the header's length is put before it."""
    header, _, content = data.partition(b"\n")
    return RecordDict({"000000": ConfigRecord({"flat": len(header).to_bytes(4, "big") + header + content})})


def restore(data: bytes) -> None:
    """Flower's records out of one flat piece; whole ones come back the same."""
    try:
        records = flat.restore(_pieces(data))
    except ValueError:
        return
    again = flat.restore(flat.flatten(records))
    assert repr(again) == repr(records)


def unpack(data: bytes) -> None:
    """A message of any kind, as the executor and the round loop read it."""
    try:
        records = flat.restore(_pieces(data))
    except ValueError:
        return
    for kind in (Offer, TrainRequest, EvaluateRequest, Update, Figures, Accepted, Refusal):
        with contextlib.suppress(Refused):
            kind.unpack(records)
    with contextlib.suppress(Refused):
        read_reply(records, Update)


def array(data: bytes) -> None:
    """An array: its dtype, its shape (eight bytes a length), and the .npy file."""
    if len(data) < 2:
        return
    dtype, dimensions = DTYPES[data[0] % len(DTYPES)], data[1] % 4
    lengths = data[2 : 2 + 8 * dimensions]
    shape = tuple(int.from_bytes(lengths[at : at + 8], "little", signed=True) for at in range(0, len(lengths), 8))
    with contextlib.suppress(ValueError):
        found = npy.unpack(Array(dtype=dtype, shape=shape, stype="numpy.ndarray", data=data[2 + 8 * dimensions :]))
        assert found.shape == shape
        assert found.nbytes <= len(data)


def job(data: bytes) -> None:
    """A job in TOML, or in JSON as a message has it."""
    text = data.decode(errors="replace")
    with contextlib.suppress(BadInput):
        found = Job.from_toml(text)
        assert Job.from_toml(found.to_toml()).digest == found.digest
    with contextlib.suppress(BadInput, ValueError, RecursionError):
        parsed = json.loads(text)
        found = Job.from_dict(parsed)
        assert Job.from_dict(json.loads(found.canonical())).digest == found.digest


def network(data: bytes) -> None:
    """The options of a network, in JSON: refused, or made."""
    try:
        name, size, options = json.loads(data)
    except (ValueError, TypeError, RecursionError):
        return
    task = networks.ENTRIES[name].task if name in networks.NAMES else "segmentation"
    job = {"name": "x", "task": task, "classes": ["a", "b"], "privacy": {"mode": "none"}, "images": {"size": size}}
    with contextlib.suppress(BadInput):
        networks.check(
            Job.from_dict({**job, "network": {**(options if isinstance(options, dict) else {}), "name": name}})
        )


def table(data: bytes) -> None:
    """A manifest, and a table of labels."""
    file = _folder / "manifest.csv"
    file.write_bytes(data)
    for parse in (manifest.parse, manifest.parse_labels):
        with contextlib.suppress(BadInput):
            parse(file)


def site(data: bytes) -> None:
    """A site.toml; what is read can be written and read again."""
    (_folder / "site.toml").write_bytes(data)
    with contextlib.suppress(BadInput):
        found = Site.open(_folder)
        found.write_config()
        assert Site.open(_folder).config == found.config


def scan(data: bytes) -> None:
    """A DICOM file."""
    file = _folder / "a.dcm"
    file.write_bytes(data)
    found = dicom.examine(str(file))
    assert isinstance(found, LeftOut | dicom.Instance | dicom.SegmentationFile)


def _messages() -> list[bytes]:
    small = Job.load(JOBS[0])
    model = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "a.bias": np.zeros(2, np.float32)}
    packed = [
        Offer(job=small, run="run-1"),
        TrainRequest(job=small, run="run-1", round=1, model=model),
        EvaluateRequest(job=small, run="run-1", round=1, model=model),
        Update(round=1, model=model, numbers={"dice": 0.5, "dice.1": 0.25}),
        Figures(numbers={"loss": 1.0}),
        Accepted(),
        Refusal(code=RefusalCode.FAILED),
    ]
    whole = [piece["flat"] for message in packed for piece in flat.flatten(message.pack()).values()]
    ends = [4 + int.from_bytes(piece[:4], "big") for piece in whole]
    return [piece[4:end] + b"\n" + piece[end:] for piece, end in zip(whole, ends, strict=True)]


def _arrays() -> list[bytes]:
    made = [np.zeros((2, 3), np.float32), np.float64(1.0), np.zeros((0, 4), np.float16), np.arange(5)]
    return [
        bytes([DTYPES.index(str(one.dtype)), one.ndim]) + np.array(one.shape, "<i8").tobytes() + npy.pack(one).data
        for one in made
    ]


def _jobs() -> list[bytes]:
    texts = [file.read_bytes() for file in JOBS]
    return texts + [Job.from_dict(tomllib.loads(text.decode())).canonical().encode() for text in texts]


def _networks() -> list[bytes]:
    defaults = [(name, [16, 16], entry.defaults({}, 2)) for name, entry in networks.ENTRIES.items()]
    options = [{k: v for k, v in given.items() if v is not None} for _, _, given in defaults]
    made = [[name, size, given] for (name, size, _), given in zip(defaults, options, strict=True)]
    return [json.dumps(one).encode() for one in [*made, ["ResNet18", [5, 16, 16], {}]]]


def _tables() -> list[bytes]:
    return [
        b"patient,image,mask,split\nP1,a.png,m.png,train\nP2,b.png,,test\n",
        b'patient,image,label\n"P,1",a.png,"be""nign"\n',
        b"\xef\xbb\xbfSeriesInstanceUID,label\r\n1.2.3,benign\r\n",
        b"PatientID,label\nP1,malignant\n",
    ]


def _sites() -> list[bytes]:
    configs = [
        SiteConfig(name="north"),
        SiteConfig(
            name="south",
            coordinator=Coordinator(address="a:1"),
            witness="w",
            policy=Policy(hours=("22:00-06:00",), max_memory=4.0),
            approve=(Approval(jobs=("a*",), max_epsilon=8.0, max_rounds=10),),
            datasets={"ct": DatasetRules(jobs=("*",), epsilon=3.0)},
        ),
    ]
    made = []
    for config in configs:
        with tempfile.TemporaryDirectory() as folder:
            Site(Path(folder), config).write_config()
            made.append((Path(folder) / "site.toml").read_bytes())
    return made


def _scans() -> list[bytes]:
    from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

    pixels = np.arange(32 * 32, dtype=np.uint16).reshape(32, 32)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for number, syntax in enumerate((JPEG2000Lossless, JPEGLSLossless, RLELossless)):
            scans.save(scans.dataset("P1", pixels), place / f"{number}.dcm", syntax)
        scans.save(scans.dataset("P1", pixels, RescaleSlope=2, RescaleIntercept=-1), place / "plain.dcm")
        images = scans.series(place / "series", slices=3, size=(8, 8))
        scans.segmentation(images, place / "seg.dcm", {"liver": np.ones((3, 8, 8), bool)})
        return [file.read_bytes() for file in sorted(place.rglob("*.dcm"))]


TARGETS = {
    "restore": Target(restore, _messages),
    "unpack": Target(unpack, _messages),
    "array": Target(array, _arrays, 512),
    "job": Target(job, _jobs),
    "network": Target(network, _networks, 1024),
    "table": Target(table, _tables, 1024),
    "site": Target(site, _sites, 2048),
    "scan": Target(scan, _scans, 8192),
}
