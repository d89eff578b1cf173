"""The ways between gateway, TorchServe and worker, against scripted ends: what is sent again, read and told."""

from __future__ import annotations

import asyncio
import io
import logging
import re
import select
import socket
import threading
import warnings
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from serving.gateway.backend import RawAnswer
from serving.gateway.torchserve_http import HttpBackend
from serving.ports import LOOPBACK, free_port
from serving.status import BackendError, BusyError, DeadlineError
from serving.torchserve.figure_lines import FigureLines
from serving.torchserve.worker import receive
from slicewise.config import ServeConfig
from slicewise.errors import InputError, TooLargeError

Reader, Writer = asyncio.StreamReader, asyncio.StreamWriter
Script = Callable[[int, Writer], Awaitable[None]]
CONFIG = ServeConfig(max_request_mb=4)
WORKER_DIED = b'{"code": 500, "type": "InternalServerException", "message": "Worker died."}'
NO_WORKER = b'{"code": 503, "message": "Model \\"slicewise\\" has no worker to serve inference request."}'


class Server:
    """An HTTP server that notes every request it got in full and lets a script answer."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.port = free_port()
        self.heads: list[str] = []
        self.bodies: list[bytes] = []

    async def handle(self, reader: Reader, writer: Writer) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                size = re.search(r"content-length: *(\d+)", head, re.IGNORECASE)
                body = await reader.readexactly(int(size[1]) if size else 0)
                self.heads.append(head)
                self.bodies.append(body)
                await self._script(len(self.heads), writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


async def answer(writer: Writer, status: str = "200 OK", body: bytes = b"{}", **headers: str) -> None:
    told = {"Content-Length": str(len(body))} | {name.replace("_", "-"): value for name, value in headers.items()}
    lines = "".join(f"{name}: {value}\r\n" for name, value in told.items())
    writer.write(f"HTTP/1.1 {status}\r\n{lines}\r\n".encode() + body)
    await writer.drain()


@asynccontextmanager
async def listening(server: Server) -> Any:
    async with await asyncio.start_server(server.handle, LOOPBACK, server.port):
        yield


def asked(script: Script, ask: Callable[[HttpBackend], Awaitable[Any]]) -> tuple[Server, Any]:
    """The server after ``ask``, and its outcome: an answer or an exception."""
    server = Server(script)
    backend = HttpBackend(f"http://{LOOPBACK}:{server.port}", CONFIG)

    async def run() -> Any:
        async with listening(server):
            try:
                return await ask(backend)
            except (BackendError, InputError) as error:
                return error
            finally:
                await backend.close()

    return server, asyncio.run(run())


def once(backend: HttpBackend) -> Awaitable[RawAnswer]:
    return backend.forward(b"body", {"content-type": "text/x"})


def test_the_body_and_the_named_headers_arrive_and_no_others() -> None:
    async def script(_: int, writer: Writer) -> None:
        await answer(writer, body=b"done", content_type="x/y", inference_header_content_length="2")

    async def ask(backend: HttpBackend) -> tuple[RawAnswer, RawAnswer]:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return await backend.forward(bytes(3 << 20), {"X-One": "1"}), await backend.forward(b"{}", {})

    server, (large, _) = asked(script, ask)
    assert (large.content, large.headers["Content-Type"]) == (b"done", "x/y")
    assert large.headers.get("Inference-Header-Content-Length") == "2"
    assert server.bodies == [bytes(3 << 20), b"{}"]
    names = {line.partition(":")[0].lower() for line in server.heads[0].split("\r\n")[1:] if line}
    assert names == {"host", "content-length", "x-one"}
    assert server.heads[0].startswith("POST /predictions/slicewise HTTP/1.1")


def test_a_request_that_was_taken_and_not_answered_is_not_sent_again() -> None:
    async def script(_: int, writer: Writer) -> None:
        writer.close()

    server, outcome = asked(script, once)
    assert isinstance(outcome, BackendError)
    assert outcome.message == "the model server broke off"
    assert server.bodies == [b"body"]


def test_an_answer_that_is_cut_off_is_not_asked_for_again() -> None:
    async def script(_: int, writer: Writer) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        writer.close()

    server, outcome = asked(script, once)
    assert isinstance(outcome, BackendError)
    assert len(server.bodies) == 1


def test_a_kept_connection_that_was_closed_meanwhile_costs_nothing() -> None:
    closed = asyncio.Event()

    async def script(_: int, writer: Writer) -> None:
        await answer(writer)
        writer.close()  # unannounced, as a server does that ends
        await writer.wait_closed()
        closed.set()

    async def ask(backend: HttpBackend) -> RawAnswer:
        await once(backend)
        await closed.wait()
        return await once(backend)

    server, outcome = asked(script, ask)
    assert isinstance(outcome, RawAnswer)
    assert len(server.bodies) == 2


def test_a_server_that_comes_up_late_gets_the_request_once() -> None:
    async def script(_: int, writer: Writer) -> None:
        await answer(writer)

    server = Server(script)
    backend = HttpBackend(f"http://{LOOPBACK}:{server.port}", CONFIG)

    async def run() -> None:
        waiting = asyncio.create_task(once(backend))
        await asyncio.sleep(0.05)
        async with listening(server):
            await waiting
            await backend.close()

    asyncio.run(run())
    assert server.bodies == [b"body"]


def test_a_dead_worker_is_asked_once_more_and_no_more() -> None:
    async def always(_: int, writer: Writer) -> None:
        await answer(writer, "500 Internal Server Error", WORKER_DIED)

    async def first(count: int, writer: Writer) -> None:
        await (always(count, writer) if count == 1 else answer(writer))

    server, outcome = asked(always, once)
    assert isinstance(outcome, BackendError)
    assert len(server.bodies) == 2
    server, outcome = asked(first, once)
    assert isinstance(outcome, RawAnswer)
    assert len(server.bodies) == 2


@pytest.mark.parametrize(("health", "kind"), [(b'{"status": "Healthy"}', BusyError), (b"[]", BackendError)])
def test_whether_it_is_busy_or_away_is_asked_of_its_health(health: bytes, kind: type[BackendError]) -> None:
    server: Server

    async def script(_: int, writer: Writer) -> None:
        if server.heads[-1].startswith("GET /ping"):
            await answer(writer, body=health)
        else:
            await answer(writer, "503 Service Unavailable", NO_WORKER)

    server = Server(script)
    backend = HttpBackend(f"http://{LOOPBACK}:{server.port}", CONFIG)

    async def run() -> BackendError:
        async with listening(server):
            with pytest.raises(BackendError) as caught:
                await once(backend)
            await backend.close()
        return caught.value

    assert type(asyncio.run(run())) is kind
    assert server.bodies.count(b"body") == 5


def test_refusals_become_what_the_handler_said() -> None:
    refusals: list[tuple[str, bytes, type[Exception]]] = [
        ("413 Request Entity Too Large", b"", TooLargeError),
        ("400 Bad Request", b'{"error": {"code": "invalid_input", "message": "no", "cure": "yes"}}', InputError),
        ("404 Not Found", b"<html>/home/me</html>", BackendError),
    ]
    for status, body, kind in refusals:

        async def script(_: int, writer: Writer, status: str = status, body: bytes = body) -> None:
            await answer(writer, status, body)

        server, outcome = asked(script, once)
        assert type(outcome) is kind
        assert "home" not in str(outcome)
        assert len(server.bodies) == 1


def test_the_deadline_is_over_the_whole() -> None:
    async def script(_: int, __: Writer) -> None:
        await asyncio.sleep(30)

    _, outcome = asked(script, lambda backend: backend.forward(b"body", {}, 0.2))
    assert isinstance(outcome, DeadlineError)


def test_the_worker_reads_fields_of_any_length_and_ends_with_its_connection() -> None:
    ours, theirs = socket.socketpair()
    fields = [b"I", b"\x00\x00\x00\x05", b"", bytes(range(256)) * 12_000, b"tail"]
    sender = threading.Thread(target=lambda: (ours.sendall(b"".join(fields)), ours.close()))
    sender.start()
    with theirs:
        assert [receive(theirs, len(field)) for field in fields] == fields
        sender.join()
        with pytest.raises(SystemExit):
            receive(theirs, 1)


class Pieces(io.StringIO):
    """Notes each write."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[str] = []

    def write(self, text: str, /) -> int:
        self.written.append(text)
        return super().write(text)


def test_figures_are_told_later_together_and_in_whole_lines() -> None:
    stream = Pieces()
    handler = FigureLines(stream, pause_s=0.01)
    lines = [f"[METRICS]figure_{index}.Count:{index}|#ModelName:slicewise|#type:COUNTER" for index in range(300)]
    for line in lines:
        handler.handle(logging.makeLogRecord({"msg": line}))
    handler.flush()
    assert stream.getvalue().splitlines() == lines
    assert len(stream.written) < len(lines) / 5
    assert all(piece.endswith("\n") and len(piece) <= select.PIPE_BUF for piece in stream.written)


def test_figures_do_not_wait_for_others() -> None:
    told = threading.Event()

    class Telling(io.StringIO):
        def write(self, text: str, /) -> int:
            told.set()
            return super().write(text)

    handler = FigureLines(Telling(), pause_s=0.01)
    handler.handle(logging.makeLogRecord({"msg": "one"}))
    assert told.wait(30)
