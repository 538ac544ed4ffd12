"""What `join` says of clocks and versions, and which proxy it asks."""

from importlib.metadata import version

import pytest

from client.enrolment import checks
from client.enrolment.channel import Begun, proxy_for, shown
from shared.errors import BadInput, InsituError
from shared.messages import PROTOCOL


def _begun(ahead: float = 0.0, protocol: int = PROTOCOL, accuracy: float = 0.05) -> Begun:
    return Begun(b"", protocol, ahead, accuracy)


@pytest.mark.parametrize(
    ("ahead", "wrong", "worth"),
    [
        (0.0, None, None),
        (1.9, None, None),
        (-1.9, None, None),
        (4.0, None, "4.0 s ahead of"),
        (-200.0, None, "200.0 s behind"),
        (5.1, "5.1 s ahead of", None),
        (7200.0, "7200.0 s ahead of", None),
        (-305.5, "305.5 s behind", None),
    ],
)
def test_the_difference_of_the_clocks_is_told_in_seconds_with_what_to_do(ahead, wrong, worth):
    said = checks.clock(_begun(ahead))
    for found, expected in zip(said, (wrong, worth), strict=True):
        assert (found is None) == (expected is None)
        if expected:
            assert f"this machine's clock is {expected}" in found
            assert "timedatectl set-ntp true" in found
            assert "5 s ahead or 305 s behind" in found


def test_a_slow_line_is_not_taken_for_a_wrong_clock():
    assert checks.clock(_begun(3.0, accuracy=4.0)) == (None, None)


def test_the_bounds_are_those_that_flower_keeps():
    from flwr.common.constant import SYSTEM_TIME_TOLERANCE, TIMESTAMP_TOLERANCE

    assert checks.MOST_AHEAD_SECONDS == SYSTEM_TIME_TOLERANCE
    assert checks.MOST_BEHIND_SECONDS == TIMESTAMP_TOLERANCE + SYSTEM_TIME_TOLERANCE


@pytest.mark.parametrize(("protocol", "who"), [(PROTOCOL + 1, "upgrade this one"), (PROTOCOL - 1, "the coordinator's")])
def test_another_protocol_is_said_before_anything_is_proved(protocol, who):
    checks.protocol(_begun())
    with pytest.raises(InsituError, match=who):
        checks.protocol(_begun(protocol=protocol))


def test_another_minor_version_is_worth_saying():
    ours = version("insitu")
    assert checks.release(ours) is None
    assert checks.release(f"{ours}.post1") is None
    assert "insitu 99.0.0" in checks.release("99.0.0")


@pytest.fixture
def environment(monkeypatch):
    for name in ("https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch.setenv


def test_the_proxy_is_the_one_that_the_environment_names_for_this_address(environment):
    assert proxy_for("there.example.org:8444") is None
    environment("HTTP_PROXY", "http://plain.example.org:1")
    assert proxy_for("there.example.org:8444") is None
    environment("HTTPS_PROXY", "http://proxy.example.org:3128")
    assert proxy_for("there.example.org:8444") == "http://proxy.example.org:3128"
    environment("https_proxy", "other.example.org:3128")
    assert proxy_for("there.example.org:8444") == "http://other.example.org:3128"
    environment("no_proxy", "example.org")
    assert proxy_for("there.example.org:8444") is None


@pytest.mark.parametrize("proxy", ["https://proxy.example.org:3128", "socks5://proxy.example.org", "http://"])
def test_a_proxy_that_cannot_be_used_is_said(environment, proxy):
    environment("HTTPS_PROXY", proxy)
    with pytest.raises(BadInput, match="expected http://host:port"):
        proxy_for("there.example.org:8444")


def test_a_proxy_is_shown_without_its_password():
    assert shown("http://user:geheim@proxy.example.org:3128") == "http://proxy.example.org:3128"
