"""From an address to a greeted connection: TCP, TLS, hello, welcome; or a precise reason why not.

``dial`` is the way out; the helpers here (``ready``, ``retry``, ``read_message``, ``Patience`` ...)
are what ``peers/doorman.py`` uses for the way in. A socket stays an ``SSLSocket`` that does not
block; each TLS call is simply tried again when its descriptor is ready, so a connection is tied to
no loop and can be handed to another when the greeting is over.

A server that cannot be dialled may be reached *through* a peer: that peer's data port is greeted as
``relay``, the TLS with it is ended again, and over the plain connection that is left, whose other
end is now the server's, the server is greeted as if it had been dialled (``peers/relay.py``).

Promises: nothing of a remote is interpreted before both certificates are verified; the id a remote
claims is the fingerprint of its certificate. ``dial`` returns a connection or raises
``DialFailed``, in bounded time, and leaves no socket behind. A stall of this process is not taken
for silence of the remote. Whom a connection leads through sees only what is encrypted.

Does not decide what a failure means, retry, or check who may be a member: cores do.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from msgspec import structs

from grid.errors import ProtocolError
from grid.framing import FRAME_BYTES_MAX, GREETING_BYTES_MAX, Decoder, encode
from grid.messages import Address, Hello, Message, Paired, PeerRef, Refusal, Welcome
from peers.link import Connection, encrypt, hang_up, tune
from peers.security import Security, fingerprint

T = TypeVar("T")

FailureKind = Literal["refused", "silent", "stranger", "wrong_key", "refusal", "unreachable"]

_VERIFICATION_ALERTS = ("UNKNOWN_CA", "CERTIFICATE", "DECRYPT_ERROR", "ACCESS_DENIED")
_ROUND_TRIPS = 3  # of TLS and greeting, after the one of connecting; one may be lost
_STALL_SECONDS = 0.1  # a timer this late means that we slept, not the remote
_STALLS_FORGIVEN = 3
_READ_BYTES = 16 * 2**10

PAIRING_SECONDS = 7.0
"""How long to wait for the other end of a relay: longer than whoever pairs us waits for it, so
that its reason reaches us."""


class DialFailed(Exception):
    """No connection. ``kind`` tells apart what a decision needs, ``reason`` is for people.

    ``refused``: nobody listens. ``silent``: no answer in time (frozen, or filtered).
    ``stranger``: it speaks something else. ``wrong_key``: it speaks TLS, but either side's
    certificate is not of the other's grid. ``refusal``: it is of our grid and will not have us.
    ``unreachable``: no route or no such host, or the connection broke while greeting.
    """

    def __init__(self, kind: FailureKind, reason: str) -> None:
        super().__init__(kind, reason)
        self.kind: FailureKind = kind
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.kind}: {self.reason}"


async def dial(
    address: Address,
    security: Security,
    hello: Hello,
    timeout: float,
    *,
    host_silence_seconds: float = 2.0,
    wanted: str = "",
    through: PeerRef | None = None,
) -> Connection:
    """Connect within ``timeout`` seconds, then verify, then greet, in the same time each and what
    the length of the way costs (a far host is not a silent one), or raise ``DialFailed``.

    Only the peer ``wanted`` is greeted, if one is named. With ``through``, which follows
    ``wanted``, that peer is dialled instead of ``address``; greeting it may take ``timeout`` too.
    """
    try:
        raw = None
        if through is not None:
            raw = await dial_through(
                through, security, hello, timeout, wanted, host_silence_seconds
            )
        began = asyncio.get_running_loop().time()
        async with Patience(timeout) as patience:
            raw = raw or await connect(address, timeout)
            took = asyncio.get_running_loop().time() - began
            patience.begin_again(timeout + _ROUND_TRIPS * min(took, timeout))
            tls = _wrapped(raw, security, host_silence_seconds)
            try:
                await retry(tls, tls.do_handshake)
                # It lives. One that has a crowd at its door may need as long again.
                patience.begin_again(timeout + _ROUND_TRIPS * min(took, timeout))
                return await _introduce(tls, hello, wanted)
            except BaseException:
                hang_up(tls)
                raise
    except OSError as error:
        kind, reason = explain(error)
        raise DialFailed(kind, f"{address}: {reason}") from error
    except ProtocolError as error:
        raise DialFailed("stranger", f"{address}: {error}") from error
    except ValueError as error:  # a host name that cannot even be encoded
        raise DialFailed("unreachable", f"{address} is no address: {error}") from error


def check_welcome(answer: Message, remote: str, far: Address) -> Welcome:
    """Return the welcome, or raise ``DialFailed`` (refused) or ``ProtocolError``."""
    if isinstance(answer, Refusal):
        raise DialFailed("refusal", answer.reason)
    if not isinstance(answer, Welcome):
        raise ProtocolError(f"{far} answered our hello with {type(answer).__name__}")
    if answer.peer != remote:
        raise ProtocolError(f"{far} gave an id that is not its certificate's: {answer.peer!r}")
    return answer


def explain(error: OSError) -> tuple[FailureKind, str]:
    """Return the kind and the reason of a failed connection."""
    text = error.strerror or str(error) or type(error).__name__
    match error:
        case TimeoutError():
            return "silent", "no answer in time"
        case ConnectionRefusedError():
            return "refused", "nobody listens"
        case ssl.SSLCertVerificationError():
            return "wrong_key", "its certificate is of another grid or key"
        case ssl.SSLEOFError():
            return "unreachable", "it closed the connection while greeting"
        case ssl.SSLError() if "ALERT" in (error.reason or "") and any(
            word in error.reason for word in _VERIFICATION_ALERTS
        ):
            return "wrong_key", f"it does not accept our certificate ({error.reason})"
        case ssl.SSLError():
            return "stranger", f"it does not speak TLS 1.3 as we do ({error.reason or text})"
        case _:
            return "unreachable", text


# ------------------------------------------------------------------------------ steps of a greeting


async def connect(address: Address, seconds: float) -> socket.socket:
    """Try every address of the host in turn; raise the most telling failure (``OSError``)."""
    loop = asyncio.get_running_loop()
    found = await _resolve(address)
    failures: list[OSError] = []
    for family, kind, protocol, _, where in found:
        raw = socket.socket(family, kind, protocol)
        raw.setblocking(False)
        try:
            async with Patience(seconds / len(found)):
                await loop.sock_connect(raw, where)
            if raw.getsockname() == raw.getpeername():
                # Dialling a free port of the ephemeral range may draw that very port as our own.
                raise ConnectionRefusedError("connected to itself: nobody listens")
        except OSError as error:
            raw.close()
            failures.append(error)
        except BaseException:
            raw.close()
            raise
        else:
            return raw
    order = {"silent": 0, "refused": 1, "unreachable": 2}
    raise min(failures, key=lambda error: order.get(explain(error)[0], 3))


async def _resolve(address: Address) -> Sequence[tuple[int, int, int, str, tuple[Any, ...]]]:
    try:  # a number needs neither a thread nor a name server
        return socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
        )
    except socket.gaierror:
        loop = asyncio.get_running_loop()
        return await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)


def _wrapped(raw: socket.socket, security: Security, host_silence_seconds: float) -> ssl.SSLSocket:
    try:
        tune(raw, host_silence_seconds)
    except BaseException:
        raw.close()
        raise
    return encrypt(raw, security.client_context, server_side=False)


async def dial_through(
    through: PeerRef,
    security: Security,
    hello: Hello,
    timeout: float,
    wanted: str,
    host_silence_seconds: float,
) -> socket.socket:
    """A plain connection whose far end is the server ``wanted``, by way of a peer that follows it.

    Raises ``DialFailed``, ``ProtocolError`` or ``OSError``.
    """
    asking = structs.replace(
        hello, role="relay", intended=through.data, wanted=wanted, claim=None, token=""
    )
    connection = await dial(
        through.data,
        security,
        asking,
        timeout,
        host_silence_seconds=host_silence_seconds,
        wanted=through.peer,
    )
    try:
        return await part(connection)
    except BaseException:
        connection.close()
        raise


async def part(connection: Connection) -> socket.socket:
    """At one end of a relay: wait for the other and end the TLS; return the plain socket.

    Raises ``DialFailed``, ``ProtocolError`` or ``OSError``; the connection is then still open.
    """
    async with Patience(PAIRING_SECONDS):
        check_paired(await read_message(connection.sock, connection.decoder))
        if connection.decoder.unread_bytes:
            raise ProtocolError(f"{connection.far} said more after its TLS had to end")
        return await end_tls(connection.sock)


def check_paired(answer: Message) -> None:
    """Raise ``DialFailed`` if a relay did not come about, ``ProtocolError`` for anything else."""
    if isinstance(answer, Refusal):
        raise DialFailed("unreachable", answer.reason)
    if not isinstance(answer, Paired):
        raise ProtocolError(f"it answered a relay with {type(answer).__name__}")


async def end_tls(tls: ssl.SSLSocket) -> socket.socket:
    """End the TLS of a connection, both ways; return the plain socket that was beneath it.

    OpenSSL reads one record at a time, so what the far end sends plainly is still unread.
    """
    await retry(tls, tls.unwrap)
    raw = socket.socket(fileno=tls.detach())
    raw.setblocking(False)
    return raw


async def _introduce(tls: ssl.SSLSocket, hello: Hello, wanted: str) -> Connection:
    remote = verified_id(tls)
    if wanted and remote != wanted:
        raise ProtocolError("there is now another peer than the one expected")
    await write_message(tls, hello)
    decoder = Decoder(GREETING_BYTES_MAX)
    # The remote's verdict on our certificate arrives here, at our first read (TLS 1.3).
    welcome = check_welcome(await read_message(tls, decoder), remote, far_end(tls))
    decoder.frame_bytes_max = FRAME_BYTES_MAX
    return Connection(tls, remote, hello, welcome, decoder, near_end(tls), far_end(tls))


def verified_id(tls: ssl.SSLSocket) -> str:
    """The peer id at the far end of a finished handshake."""
    certificate = tls.getpeercert(binary_form=True)
    if certificate is None:
        raise ProtocolError("the remote showed no certificate")
    return fingerprint(certificate)


async def read_message(tls: ssl.SSLSocket, decoder: Decoder) -> Message:
    """Wait for one message. Raises ``ProtocolError``, or ``OSError`` when the connection ends."""
    while (message := decoder.next()) is None:
        data = await retry(tls, partial(tls.recv, _READ_BYTES))
        if not data:
            raise ConnectionResetError("it closed the connection while greeting")
        decoder.feed(data)
    return message


async def write_message(tls: ssl.SSLSocket, message: Message) -> None:
    """Write one message."""
    left = memoryview(encode(message))
    while left:
        left = left[await retry(tls, partial(tls.send, left)) :]


async def retry(tls: ssl.SSLSocket, call: Callable[[], T]) -> T:
    """Try a TLS call until it is done, waiting for its descriptor in between."""
    while True:
        try:
            return call()
        except ssl.SSLWantReadError:
            await ready(tls)
        except ssl.SSLWantWriteError:
            await ready(tls, writing=True)


async def ready(sock: socket.socket, *, writing: bool = False) -> None:
    """Wait until ``sock`` can be read, or written."""
    loop = asyncio.get_running_loop()
    fd = sock.fileno()
    add, remove = (
        (loop.add_writer, loop.remove_writer) if writing else (loop.add_reader, loop.remove_reader)
    )
    happened: asyncio.Future[None] = loop.create_future()

    def settle() -> None:
        if not happened.done():
            happened.set_result(None)

    add(fd, settle)
    try:
        await happened
    finally:
        remove(fd)


def near_end(sock: socket.socket) -> Address:
    """The address of our end."""
    return Address(*sock.getsockname()[:2])


def far_end(sock: socket.socket) -> Address:
    """The address of the remote's end."""
    return Address(*sock.getpeername()[:2])


class Patience:
    """``asyncio.timeout`` for waiting on a remote: ``TimeoutError`` after ``seconds``.

    A timer that fires much too late tells of our own stall (a held GIL, a stopped process), after
    which the answer may well be there unread: the wait is begun again, a few times at most.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._forgiven = 0
        self._limit = asyncio.timeout(None)
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        await self._limit.__aenter__()
        self._arm()
        return self

    def begin_again(self, seconds: float) -> None:
        """The remote has shown life: wait so long for the rest."""
        if self._timer is not None:
            self._timer.cancel()
        self._seconds = seconds
        self._arm()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        await self._limit.__aexit__(kind, error, traceback)

    def _arm(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + self._seconds
        self._timer = loop.call_at(due, self._expire, due)

    def _expire(self, due: float) -> None:
        loop = asyncio.get_running_loop()
        if loop.time() - due > _STALL_SECONDS and self._forgiven < _STALLS_FORGIVEN:
            self._forgiven += 1
            self._arm()
        else:
            self._limit.reschedule(loop.time())
