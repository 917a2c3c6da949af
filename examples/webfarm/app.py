"""A web application whose workers are the peers of a grid: what any request asks, all work on.

    pip install gunicorn
    cd examples/webfarm && gunicorn app:application

    GET  /                  which worker answers, and who serves the grid
    GET  /primes?below=N    how many primes there are; the request waits for its result
    POST /words             the body's words are counted, whatever dies: answers with the job's id
    GET  /words/ID          the counts, from any worker, today or after a restart; 202 while it runs

There is one ``Peer`` at the top of the module and nothing else to set up. ``start=False`` makes it
begin at the first request that needs it, so each worker starts its own, after the fork, and a
process that only loads the application (with ``preload_app`` the master does) has no thread,
socket or file of a grid. Each worker runs one task at a time besides its requests, and has a part
of the host's memory, which by default a peer takes half of.

A request that waits is lost with its worker, as without a grid. What was posted is not: it is on
disk before its id is told. docs/webfarm.md says more.
"""

import json
import os
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs

from peers import GridError, Job, NoResult, Peer

LIMIT = 5_000_000
SHARE = 20_000
BODY_MAX = 1 << 20
WAIT_SECONDS = 55.0  # proxies in front commonly give up after a minute

peer = Peer(start=False, slots=1, copies=1, memory_limit="512M")

Answer = tuple[str, object]


def primes(_share: int, numbers: range) -> Iterator[tuple[str, int]]:
    """How many of these numbers are prime."""
    yield "primes", sum(1 for n in numbers if n > 1 and all(n % d for d in divisors(n)))


def divisors(number: int) -> range:
    return range(2, int(number**0.5) + 1)


def words(_line: int, text: str) -> Iterator[tuple[str, int]]:
    for word in text.split():
        yield word.lower(), 1


def total(_key: str, counts: list[int]) -> int:
    return sum(counts)


def about(_request: dict[str, Any]) -> Answer:
    return "200 OK", {
        "pid": os.getpid(),
        "peer": peer.name,
        "serving": peer.serving,
        "server": peer.server,
        "peers": len(peer.status().members),
    }


def count_primes(request: dict[str, Any]) -> Answer:
    below = parse_qs(request.get("QUERY_STRING", "")).get("below", [""])[0]
    if not below.isdecimal() or not 0 < int(below) <= LIMIT:
        return "400 Bad Request", {"error": f"below={below!r} is no number from 1 to {LIMIT}"}
    shares = [range(n, min(n + SHARE, int(below))) for n in range(0, int(below), SHARE)]
    results = peer.submit(Job(shares, primes, reducefn=total), retries=1).result(WAIT_SECONDS)
    return "200 OK", {"below": int(below), **results}


def post_words(request: dict[str, Any]) -> Answer:
    length = request.get("CONTENT_LENGTH") or "0"
    if not length.isdecimal() or int(length) > BODY_MAX:
        return "413 Content Too Large", {"error": f"at most {BODY_MAX} bytes, please"}
    text = request["wsgi.input"].read(int(length)).decode("utf-8", "replace")
    job = Job(text.splitlines(), words, reducefn=total)
    return "202 Accepted", {"id": peer.submit(job, detached=True).id}


def fetch_words(request: dict[str, Any]) -> Answer:
    name = request["PATH_INFO"].removeprefix("/words/")
    try:
        return "200 OK", peer.fetch(name).result(WAIT_SECONDS)
    except NoResult as error:
        running = any(txn.record == name for txn in peer.status().transactions)
        return ("202 Accepted" if running else "404 Not Found"), {"error": str(error)}


def route(request: dict[str, Any]) -> Callable[[dict[str, Any]], Answer] | None:
    match request["REQUEST_METHOD"], request["PATH_INFO"]:
        case "GET", "/":
            return about
        case "GET", "/primes":
            return count_primes
        case "POST", "/words":
            return post_words
        case "GET", path if path.startswith("/words/"):
            return fetch_words
        case _:
            return None


def application(request: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    """What gunicorn calls (WSGI), in many threads of many processes."""
    handler = route(request)
    status, answer = "404 Not Found", object()
    try:
        status, answer = handler(request) if handler else (status, {"error": "no such page"})
    except (GridError, TimeoutError) as error:
        status, answer = "503 Service Unavailable", {"error": str(error)}
    body = json.dumps(answer).encode() + b"\n"
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    start_response(status, headers)
    return [body]
