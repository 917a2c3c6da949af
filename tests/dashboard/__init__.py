import pytest

for _module in ("starlette", "uvicorn"):
    pytest.importorskip(_module, reason="the extra peergrid[dashboard] is not installed")
