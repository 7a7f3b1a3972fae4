"""What aiohttp says of bytes that are no HTTP: counted, not written down, for anybody can send them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from aiohttp.http_exceptions import HttpProcessingError

from motedge.serve.metrics import ServeMetrics

if TYPE_CHECKING:
    _Adapter = logging.LoggerAdapter[logging.Logger]
else:
    _Adapter = logging.LoggerAdapter


class HttpLog(_Adapter):
    """Passes on everything else."""

    def __init__(self, metrics: ServeMetrics) -> None:
        """`metrics`: of the server, which count it."""
        super().__init__(logging.getLogger("motedge.serve.http"), {})
        self._metrics = metrics

    def exception(self, msg: object, *args: object, exc_info: Any = True, **more: Any) -> None:
        """Called by aiohttp with the error that it answers."""
        if isinstance(exc_info, HttpProcessingError):
            self._metrics.refused("http")
            self.debug(msg, *args)
        elif isinstance(exc_info, ConnectionError):
            # Who asked is gone before the answer began
            self.debug(msg, *args)
        else:
            super().exception(msg, *args, exc_info=exc_info, **more)
