"""The ``site`` of live tests, here too."""

from tests.live.conftest import site

__all__ = ["site"]
