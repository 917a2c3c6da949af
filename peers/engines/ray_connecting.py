"""Connecting to a Ray cluster, and leaving it: what Ray tries for minutes is bounded here.

``ray://`` is Ray's client: a gRPC server on the cluster does what it is told, in a process that it
starts for each client. Without it this process joins the cluster. What is wrong with an address is
looked for before Ray is asked, since it says only that there was no connection.
"""

import logging
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import grpc
import ray
import ray.util.client

from grid.errors import CannotJoin, Refused
from peers.engines.interface import CONNECT_SECONDS, Request
from peers.engines.watched import END_SECONDS, within

log = logging.getLogger(__name__)

START_SECONDS = 60.0
"""A cluster that has answered starts a process for a client within a few."""

ASK_SECONDS = 2.0
"""So long the head's port may take to accept."""

_GREETING = "/ray.rpc.RayletDriver/ClusterInfo"


@contextmanager
def connected(address: str, request: Request) -> Iterator[None]:
    """Be connected: to the client server at ``address``, or, if that is empty, to the cluster this
    process has joined, that ``RAY_ADDRESS`` names, or one of this host. Raises ``CannotJoin``,
    ``Refused``."""
    if not address and ray.is_initialized():
        yield
        return
    seconds = request.connect_seconds or CONNECT_SECONDS
    told = os.environ.get("RAY_ADDRESS", "")
    if not address and told.startswith("ray://"):
        address = told.removeprefix("ray://")
    if address:
        _dial(address, seconds)
        _greet(address, seconds)
        _init(address, address=f"ray://{address}")
    elif told:
        if ":" in told:
            _dial(told, seconds)
        _init(told, address=told)
    else:  # a cluster that was here once would be sought for minutes
        _init("this host", address="local")
    try:
        yield
    finally:
        _leave()


def place() -> tuple[str, Callable[[], object]]:
    """Return what the cluster is called, and how to ask whether its head is there: a function that
    raises if it is not."""
    if ray.util.client.ray.is_connected():
        return "the Ray cluster behind ray://", ray.nodes
    address = ray.get_runtime_context().gcs_address
    # Not asked by Ray: a question that is open when the head dies ends this process after a minute.
    return f"the Ray cluster at {address}", lambda: _knock(address, ASK_SECONDS)


def _leave() -> None:
    if not ray.util.client.ray.is_connected():
        ray.shutdown()
        return
    try:
        within(END_SECONDS, ray.shutdown)
    except TimeoutError:  # nobody is there, and it waits for somebody
        log.debug("Ray's client has not ended")


def _knock(address: str, seconds: float) -> None:
    host, _, port = address.rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), seconds).close()


def _dial(address: str, seconds: float) -> None:
    """Look whether anybody listens there."""
    try:
        _knock(address, seconds)
    except (OSError, ValueError) as error:  # RAY_ADDRESS can be anything
        raise _unreachable(address, error) from error


def _greet(address: str, seconds: float) -> None:
    """Look whether it is Ray's client server, and lets us in. (Any answer will do.)"""
    if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
        return  # which Ray has the certificates for
    channel = grpc.insecure_channel(address, [("grpc.enable_http_proxy", 0)])
    try:
        channel.unary_unary(_GREETING)(b"", timeout=seconds, wait_for_ready=True)
        return
    except grpc.RpcError as error:
        code, details = error.code(), error.details()
    finally:
        channel.close()
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        raise _unreachable(address, f"connected, but not greeted within {seconds:g} s")
    if code is grpc.StatusCode.UNIMPLEMENTED:
        raise _unreachable(address, "what answers is not Ray's client server")
    if code is grpc.StatusCode.UNAUTHENTICATED and os.environ.get("RAY_AUTH_MODE") != "token":
        raise CannotJoin(
            f"the Ray cluster at {address} wants a token ({details}): set RAY_AUTH_MODE=token, and "
            f"RAY_AUTH_TOKEN or ~/.ray/auth_token to what `ray get-auth-token` says there"
        )


def _unreachable(address: str, why: Any) -> CannotJoin:
    return CannotJoin(
        f"no Ray cluster answers at {address}: {why}. Is that its address (of its client server, "
        f"for ray://), and can this host reach it?"
    )


def _init(where: str, **settings: Any) -> None:
    try:
        if settings["address"].startswith("ray://"):
            # Ray would warn, here and there, that its handlers of signals want the main thread.
            init = partial(ray.init, logging_level=logging.ERROR, **settings)
            try:
                within(START_SECONDS, init)
            except ConnectionAbortedError as error:
                # Of the processes that Ray forks for its clients a few hang, on a busy head.
                log.warning("the Ray cluster failed to serve a client, asking again: %s", error)
                within(START_SECONDS, init)
        else:
            ray.init(logging_level=logging.WARNING, **settings)
    except RuntimeError as error:
        if "ersion mismatch" in str(error):
            raise Refused(f"the Ray cluster at {where} has other versions: {error}") from error
        raise CannotJoin(f"Ray does not start on {where}: {error}") from error
    except Exception as error:
        raise CannotJoin(
            f"no Ray cluster answers at {where}: {type(error).__name__}: {error}. Is it in order, "
            f"and if it wants a token (RAY_AUTH_MODE, RAY_AUTH_TOKEN), is this the right one?"
        ) from error
