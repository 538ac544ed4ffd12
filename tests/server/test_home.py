"""A coordinator's home: made once, readable by its owner, held by one process."""

import subprocess
import sys

import pytest

from server.home import Home, ServerConfig
from shared import identity
from shared.errors import BadInput


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return Home.create(tmp_path_factory.mktemp("homes") / "home", ServerConfig(host="coordinator.example.org"))


def test_a_home_survives_its_files(home):
    again = Home.open(home.path)
    assert again.config == home.config
    assert identity.read_private(again.key).curve.name == "secp384r1"
    assert identity.read_certificate(again.ca) != identity.read_certificate(again.certificate)


def test_private_keys_are_readable_by_their_owner_only(home):
    for name in ("ca.key", "server.key"):
        assert (home.path / "keys" / name).stat().st_mode & 0o777 == 0o600
    assert home.path.stat().st_mode & 0o777 == 0o700


def test_a_folder_in_use_is_refused_and_left_as_it_was(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(BadInput, match="already in use"):
        Home.create(tmp_path, ServerConfig(host="x.org"))
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("host =", "not valid TOML"),
        ("port = 1", "host"),
        ('host = "x.org"\nport = 70000', "port"),
        ('host = "x.org"\nhots = 1', "hots"),
    ],
)
def test_a_wrong_configuration_is_bad_input_naming_file_and_field(tmp_path, text, what):
    (tmp_path / "server.toml").write_text(text)
    with pytest.raises(BadInput, match=what) as wrong:
        Home.open(tmp_path)
    assert "server.toml" in str(wrong.value)


def test_a_home_is_held_by_one_process_and_free_again_when_it_is_killed(home):
    program = (
        "from server.home import Home; from pathlib import Path; import sys, time\n"
        f"home = Home.open(Path({str(home.path)!r}))\n"
        "with home.claimed():\n    home.announce({'port': 5}); print('held', flush=True); time.sleep(60)"
    )
    assert home.running() is None
    holder = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    assert home.running() == {"port": 5}
    with pytest.raises(BadInput, match="already running on this home"), home.claimed():
        pass
    holder.kill()
    holder.wait()
    assert home.running() is None
    with home.claimed():
        assert home.running() == {}  # what the killed one announced is forgotten
