"""How often to look again for something that may come any moment, or not for hours."""

from __future__ import annotations

import time


class Pace:
    """Wait a tenth of what has been waited for so far, between two bounds.

    Looking costs the processor that somebody is training on, and not looking costs time: so what takes a second is
    seen within a tenth of it, and what takes an hour is not looked for a hundred times a second.

    >>> pace = Pace(shortest=0.001, longest=0.002)
    >>> pace.interval()
    0.001
    """

    def __init__(self, *, shortest: float, longest: float, share: float = 0.1) -> None:
        """Bounds in seconds."""
        self.shortest = shortest
        self.longest = longest
        self.share = share
        self.reset()

    def reset(self) -> None:
        """Something came: the waiting starts anew."""
        self._since = time.monotonic()

    def interval(self) -> float:
        """Seconds to wait before the next look."""
        return min(max((time.monotonic() - self._since) * self.share, self.shortest), self.longest)

    def wait(self) -> None:
        """Wait that long."""
        time.sleep(self.interval())
