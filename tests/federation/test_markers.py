"""Nothing of a patient leaves the places that are for it: looked for by markers and by known pixels, everywhere.

A real coordinator and a real site, built by its own commands, train with and without privacy, and fail on files that
have changed or gone. Then everything that came of it is searched: logs, what the commands said, the site's home, the
coordinator's disk, temporary files, and the traffic in the clear.
"""

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from harness import Federation, free_port, until
from marked import REGISTERED, Hospital
from traces import Traces, together
from wiretap import Wiretap

from client.site import Approval, DatasetRules, Policy, Site
from server.home import Home, ServerConfig
from shared.job import Job

pytestmark = pytest.mark.federation

SITE = "north"
# In a home: what the datasets are registered in, and the preprocessed images.
CONFIDENTIAL = ("registry.sqlite", "cache/")
SEGMENTATION = """
name = "lesions"
task = "segmentation"
classes = ["background", "lesion"]
[images]
size = [16, 16]
intensity = "unit"
[network]
name = "UNet"
channels = [4, 8]
strides = [2]
[training]
local_steps = 2
batch_size = 4
[privacy]
epsilon = 8.0
delta = 1e-4
sample_rate = 0.5
[federation]
rounds = 2
evaluate_every = 1
quorum_deadline = "60s"
round_deadline = "60s"
"""
PRIVATE = Job.from_toml(SEGMENTATION)
PLAIN = Job.from_dict(
    {
        **PRIVATE.without_privacy().model_dump(mode="json", exclude_none=True),
        "task": "classification",
        "classes": ["healthy", "sick"],
        "network": {"name": "ViT", "hidden_size": 8, "mlp_dim": 8, "num_layers": 1, "num_heads": 1},
    }
)
# Other preprocessing than was cached: the files are read again.
AGAIN = PRIVATE.without_privacy().varied(images={"intensity": "zscore"})
ONCE_MORE = PRIVATE.without_privacy().varied(images={"intensity": "percentile"})
OTHER_CLASSES = AGAIN.model_copy(update={"classes": ("background", "tumour")})
JOBS = (PRIVATE, PLAIN, AGAIN, ONCE_MORE)


@dataclass
class Ran:
    """What has happened, to be searched.

    Attributes:
        said: command → what it said: results on its standard output, everything else on the other one.
        runs: run → how it ended.
        tmp: where temporary files went.
    """

    fed: Federation
    hospital: Hospital
    tap: Wiretap
    tmp: Path
    site: Path
    said: dict[str, subprocess.CompletedProcess] = field(default_factory=dict)
    runs: dict[str, str] = field(default_factory=dict)
    traces: Traces | None = None

    def say(self, side: str, *arguments: object) -> subprocess.CompletedProcess:
        command = [str(Path(sys.executable).with_name(f"insitu-{side}")), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, timeout=120)
        self.said[f"{len(self.said)}: insitu-{side} {' '.join(map(str, arguments))}"] = done
        return done

    def command(self, side: str, *arguments: object, code: int = 0) -> subprocess.CompletedProcess:
        done = self.say(side, *arguments)
        assert done.returncode == code, done.stdout + done.stderr
        return done

    def train(self, job: Job) -> str:
        run = self.fed.submit(job)
        row = self.fed.wait(run)
        self.runs[run] = f"{row.status}: {row.message}"
        return row.status


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    folder = tmp_path_factory.mktemp("markers")
    hospital, tmp = Hospital(folder / "hospital"), folder / "tmp"
    tmp.mkdir()
    port = free_port()
    home = Home.create(folder / "coordinator", ServerConfig(host="localhost", listen="127.0.0.1", port=port))
    fed = Federation(folder, home, {}, None, None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(tmp))
        fed.start_coordinator()
        tap = Wiretap(coordinator=home.path, port=port, folder=folder)
        ran = Ran(fed, hospital, tap, tmp, folder / SITE)
        try:
            _build(ran)
            _run(ran)
            ran.traces = hospital.traces(*JOBS)
            yield ran
        finally:
            fed.stop()
            tap.close()


def _build(ran: Ran) -> None:
    home, coordinator = ran.site, ran.fed.home.path
    address = f"127.0.0.1:{ran.tap.port}"
    ran.command("client", "init", SITE, "--home", home, "--coordinator", address, "--ca", coordinator / "ca.pem")
    ran.command("server", "admit", SITE, home / "keys" / "site.pub", "--home", coordinator)
    site = Site.open(home)
    policy = Policy(privacy_required=False, min_sites=1, min_patients=1, threads=1)
    rules = {name: DatasetRules(epsilon=100.0, delta=1e-3) for name in ("scans", "labelled", "listed")}
    changed = {"device": "cpu", "policy": policy, "approve": (Approval(),), "datasets": rules}
    Site(home, site.config.model_copy(update=changed)).write_config()
    hospital, names = ran.hospital, ran.hospital.names
    lesion = f"--map={names['SegmentLabel']}=lesion"
    ran.command("client", "data", "add", "scans", hospital.scans, lesion, "--home", home)
    maps = [f"--map={names['a label']}=healthy", f"--map={names['a label ']}=sick"]
    labels = ("--labels", hospital.table)
    ran.command("client", "data", "add", "labelled", hospital.labelled, *labels, *maps, "--home", home)
    ran.command("client", "data", "add", "listed", hospital.listed, "--home", home, "--json")


def _run(ran: Ran) -> None:
    fed, home = ran.fed, ran.site
    fed.sites[SITE] = Site.open(home)
    fed.start_site(SITE)
    fed.connected(SITE)
    assert ran.train(PRIVATE) == "completed", ran.runs
    assert ran.train(PLAIN) == "completed", ran.runs
    assert ran.train(OTHER_CLASSES) == "failed"
    ran.command("client", "show", PRIVATE.digest, "--home", home)
    files = sorted(ran.hospital.scans.rglob("*.dcm"))
    for file in files:
        content = file.read_bytes()
        file.write_bytes(content[: len(content) - 200])
    assert ran.train(AGAIN) == "failed"
    for file in files:
        file.rename(file.with_suffix(".gone"))
    assert ran.train(ONCE_MORE) == "failed"
    for name in ("scans", "labelled", "listed"):
        ran.command("client", "data", "show", name, "--home", home)
        ran.say("client", "data", "check", name, "--home", home)
    ran.command("client", "data", "list", "--home", home)
    ran.command("client", "status", "--home", home)
    ran.command("client", "budget", "--home", home)
    ran.command("client", "jobs", "--home", home)
    ran.say("client", "show", PRIVATE.digest, "--home", home)  # of which the files are gone
    ran.command("client", "audit", "verify", "--home", home)
    ran.command("client", "audit", "--home", home)
    for run in ran.runs:
        ran.command("server", "show", run, "--json", "--home", fed.home.path)


def test_each_marker_and_all_pixels_are_in_the_hospitals_own_files(ran):
    found = together(ran.traces.under(ran.hospital.folder))
    assert set(ran.hospital.marks.places) - found == set()
    images = set(range(len(ran.hospital.arrays))) - {ran.hospital.cut}
    assert {f"pixels of image {number} as uint16" for number in images} - found == set()
    assert len(ran.hospital.marks.places) > 2500


def test_the_registry_knows_files_and_labels_and_no_patient(ran):
    found = together(ran.traces.under(ran.site, without=tuple(_others(ran.site, "registry.sqlite"))))
    assert {name.strip() for name in found} == set(REGISTERED)


def test_the_cache_holds_pixels_and_no_word(ran):
    found = together(ran.traces.under(ran.site / "cache"))
    assert any(name.endswith("as unit") for name in found)
    assert {name for name in found if not name.startswith("pixels of ")} == set()


def test_nothing_of_a_patient_is_in_the_home_but_in_the_registry_and_the_cache(ran):
    assert {"log/site.log", "log/executor.log", "ledger.sqlite", "record.jsonl"} <= _files(ran.site)
    assert any(file.startswith(("replies/", "witness/")) for file in _files(ran.site))
    assert ran.traces.under(ran.site, without=CONFIDENTIAL) == {}


def test_the_log_says_what_failed_all_the_same(ran):
    log = (ran.site / "log" / "site.log").read_text()
    assert log.count("run `insitu-client data add` again") == 2
    assert "refused (labels)" in log


def test_nothing_of_a_patient_is_on_the_coordinators_disk(ran):
    assert {"store.sqlite", "ca.pem"} <= _files(ran.fed.home.path)
    assert ran.traces.under(ran.fed.home.path) == {}


def test_nothing_of_a_patient_is_in_what_the_processes_said(ran):
    logs = {file.name: file.read_bytes() for file in ran.fed.folder.glob("*.log")}
    assert {"server.log", f"{SITE}.log"} <= set(logs)
    assert {name: ran.traces.among(log) for name, log in logs.items()} == {name: set() for name in logs}


def test_nothing_of_a_patient_is_left_in_temporary_files(ran):
    (ran.tmp / "any").touch()
    assert ran.traces.under(ran.tmp) == {}


def test_nothing_of_a_patient_crosses_the_wire_in_the_clear(ran):
    until(lambda: ran.tap.up and ran.tap.down)
    sent, received = b"\n".join(ran.tap.up), b"\n".join(ran.tap.down)
    # What was written down is the real traffic: requests and updates, with their models.
    kinds = {b"Update": sent, b"Refusal": sent, b"TrainRequest": received, b"EvaluateRequest": received}
    for kind, traffic in kinds.items():
        assert b'"kind":"%s"' % kind in traffic
    assert b"numpy.ndarray" in sent
    assert ran.traces.among(sent) == set()
    assert ran.traces.among(received) == set()


def test_what_went_through_the_same_proxy_would_be_found(ran):
    mark = ran.hospital.marks.text("a probe")
    pixels = ran.hospital.arrays[0][3].tobytes()
    url = f"https://localhost:{ran.tap.port}/v1/fleet/pull-messages"
    httpx.post(url, content=mark.encode() + pixels, verify=str(ran.fed.home.ca))
    probe = until(lambda: [piece for piece in ran.tap.up if b"httpx" in piece and mark.encode() in piece])
    assert ran.traces.among(bytes(probe[0])) == {"a probe", "pixels of image 0 as uint16"}
    ran.tap.up.remove(probe[0])


def test_what_the_commands_say_names_no_patient_and_errors_and_warnings_name_nothing(ran):
    for command, done in ran.said.items():
        assert ran.traces.among(done.stderr) == set(), command
        asked = {name.strip() for name in ran.traces.among(done.stdout)}
        shows = set(REGISTERED) if " data " in command else set()
        assert asked <= shows, command


def test_a_manifest_that_is_wrong_is_not_quoted(ran, tmp_path):
    mark = ran.hospital.marks.text
    wrong = {
        "no header": f"{mark('a row')},{mark('a row')}\n{mark('a row')},{mark('a row')}\n",
        "no file": f"patient,image,mask\n{mark('a row')},{mark('a row')}.png,{mark('a row')}.png\n",
        "a split": f"patient,image,mask,split\n{mark('a row')},a,b,{mark('a row')}\n",
        "no text": f'patient,image,mask\n"{mark("a row")}',
    }
    for name, text in wrong.items():
        (tmp_path / "manifest.csv").write_text(text)
        done = ran.command("client", "data", "add", "wrong", tmp_path, "--home", ran.site, code=2)
        assert ran.traces.among(done.stdout + done.stderr) == set(), name


def test_the_report_of_a_run_has_nothing_of_a_patient(ran):
    shown = [done.stdout for command, done in ran.said.items() if "insitu-server show" in command]
    assert len(shown) == len(ran.runs)
    assert all(ran.traces.among(text) == set() for text in shown)
    if "report" in ran.command("server", "--help").stdout.decode().split():
        for run in ran.runs:
            ran.command("server", "report", run, "--home", ran.fed.home.path, "--out", ran.tmp / f"{run}.html")
        assert ran.traces.under(ran.tmp) == {}


def _files(folder: Path) -> set[str]:
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}


def _others(folder: Path, *but: str) -> list[str]:
    return [name for name in os.listdir(folder) if not name.startswith(but)]
