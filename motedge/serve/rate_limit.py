"""How often one client may ask."""

from __future__ import annotations

from collections import OrderedDict


class RateLimit:
    """A bucket that fills with `rate_hz` up to `burst`; each request takes one."""

    def __init__(self, rate_hz: float, burst: int, now_s: float) -> None:
        """`now_s`: any clock that does not go back."""
        self._rate_hz, self._burst = rate_hz, float(burst)
        self._left, self._filled_s = float(burst), now_s

    def allows(self, now_s: float) -> bool:
        """Whether one more may come now; counts it if so."""
        self._left = min(self._burst, self._left + max(now_s - self._filled_s, 0.0) * self._rate_hz)
        self._filled_s = now_s
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


class RateLimits:
    """A bucket for each of the clients that asked last; of those before, what they asked is forgotten."""

    def __init__(self, rate_hz: float, burst: int, most: int = 1024) -> None:
        """`most`: clients that are remembered."""
        self._rate_hz, self._burst, self._most = rate_hz, burst, most
        self._limits: OrderedDict[str, RateLimit] = OrderedDict()

    def allows(self, client: str, now_s: float) -> bool:
        """Whether one more of this client may come now; counts it if so."""
        limit = self._limits.pop(client, None) or RateLimit(self._rate_hz, self._burst, now_s)
        self._limits[client] = limit
        if len(self._limits) > self._most:
            self._limits.popitem(last=False)
        return limit.allows(now_s)
