"""The gRPC edge where no service stands behind it."""

from __future__ import annotations

import gc
import logging

import pytest

from services.shared.chassis.grpc import Edge, GrpcServer

pytestmark = pytest.mark.anyio


async def test_a_server_that_never_started_leaves_nothing_behind_in_records(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    GrpcServer(service="a.B", interceptor=Edge(domain="a"), address="127.0.0.1:0", max_request_bytes=1024, max_reply_bytes=1024)
    gc.collect()
    # Each argument of a record is kept as long as the record is; this one would be freed already.
    assert [record.msg for record in caplog.records if record.msg.startswith("__dealloc__")] == []
