"""Nothing calls home: importing this module turns that off, for this process and its children.

The four packages import it first of all, so it comes before whatever reads these variables when imported.

What was looked at, in the libraries installed: Flower (usage events, a check for updates, traces), Ray (usage
reports), MLflow (usage events), the Hugging Face hub that MONAI can use, and imageio (files fetched on demand). The
other libraries have nothing to turn off. `tests/federation/test_silence.py` proves it at the level of system calls.
"""

from __future__ import annotations

import os

SWITCHES = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_TRACING_ENABLED": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_USAGE_STATS_PROMPT_ENABLED": "0",
    # Ray would ask a public name server by which address it is reached itself; without a cluster it takes loopback.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "IMAGEIO_NO_INTERNET": "1",
    "DO_NOT_TRACK": "1",
}
_LOOPBACK = ("127.0.0.1", "localhost", "::1")

os.environ.update(SWITCHES)
# A proxy may be the hospital's way out; what stays on this machine must not go through it.
# Some libraries look at one of the two names only, some at the one in small letters first.
_said = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
_hosts = [host.strip() for host in _said.split(",") if host.strip()]
for _name in ("NO_PROXY", "no_proxy"):
    os.environ[_name] = ",".join([*_hosts, *(host for host in _LOOPBACK if host not in _hosts)])
