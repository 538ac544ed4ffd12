"""The bundle that Flower ships with a run: ours holds no code at all.

Flower wants one for every run, and by itself installs and runs what is in it. Here it only says which protocol the
coordinator speaks: both sides make the same bytes, a site answers no run that came with others, and neither side
ever installs or imports it.
"""

from __future__ import annotations

import hashlib
import io
import zipfile

PROTOCOL = 2  # the same as `shared.messages.PROTOCOL`, which is too heavy to import here (a test compares them)

_PYPROJECT = f"""\
[project]
name = "insitu"
version = "{PROTOCOL}.0.0"
description = "Holds no code: coordinator and sites run what is installed there"
license = "Apache-2.0"

[tool.flwr.app]
publisher = "insitu"

[tool.flwr.app.components]
serverapp = "server.app:app"
clientapp = "client.app:app"
"""


def _archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        entry = zipfile.ZipInfo("pyproject.toml", date_time=(1980, 1, 1, 0, 0, 0))
        entry.create_system = 3  # the same bytes on every system
        entry.external_attr = 0o644 << 16
        archive.writestr(entry, _PYPROJECT)
    return buffer.getvalue()


CONTENT = _archive()
DIGEST = hashlib.sha256(CONTENT).hexdigest()
