"""The stand-in itself: one ASGI app that plays all protocols in front of one encoder."""

import asyncio
import json
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.api_server.batches import BatchDesk
from tests.api_server.encoders import Encoder, Judge, hash_encoder, shortened, word_judge
from tests.api_server.faults import SPOILS, Fault
from tests.api_server.protocols import PROTOCOLS, SCORES, Asked, Speech

BATCHES = ("openai", "voyage")
"""The protocols that have batches."""


@dataclass
class Counts:
    """What the server saw and did, as a provider would bill it."""

    requests: int = 0
    answered: int = 0
    texts: int = 0
    tokens: int = 0
    too_many: int = 0
    refused: int = 0
    batches: int = 0


def count_tokens(texts: Iterable[str]) -> int:
    """About what a tokenizer gives: two more than there are words."""
    return sum(len(text.split()) + 2 for text in texts)


class StandIn:
    """A server. Its attributes can be changed while it runs.

    Args:
        encode: The model behind it.
        judge: The model behind scores of documents.
        key: That requests must have; None where none is needed.
        faults: Of the next requests, one each, in this order.
        latency: Seconds of every answer.
        requests_per_minute: Of any `window` seconds, scaled to a minute.
        tokens_per_minute: The same.
        window: Seconds.
        max_items: Texts of a request; the protocol's own where not given.
        marker: Texts with it are refused.
        quota: Tokens that are answered in all.
        say_limits: Whether answers have the headers `x-ratelimit-*`.
    """

    def __init__(
        self,
        encode: Encoder | None = None,
        *,
        key: str | None = None,
        faults: Iterable[Fault] = (),
        latency: float = 0.0,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        window: float = 60.0,
        max_items: int | None = None,
        marker: str | None = None,
        quota: int | None = None,
        say_limits: bool = False,
        judge: Judge | None = None,
    ) -> None:
        self.encode, self.judge = encode or hash_encoder(), judge or word_judge()
        self.key, self.latency, self.window, self.max_items = key, latency, window, max_items
        self.marker, self.quota, self.say_limits = marker, quota, say_limits
        self.limits = {"requests": requests_per_minute, "tokens": tokens_per_minute}
        self.batch_seconds, self.batch_end, self.lose_batch_answers = 0.0, "completed", 0
        self.batch_spoils: list[str] = []
        self.other_batches, self.odd_lines = 0, list[str]()
        self.batch_words: str | None = None
        self.faults = deque(faults)
        self.counts = Counts()
        self.bodies: deque[dict[str, Any]] = deque(maxlen=1000)
        self.headers: deque[dict[str, str]] = deque(maxlen=1000)
        self._passed: deque[tuple[float, int]] = deque()
        routes = [
            Route(speech.path, self._endpoint(speech), methods=["POST"], name=name)
            for name, speech in {**PROTOCOLS, **SCORES}.items()
        ]
        for name in BATCHES:
            routes += BatchDesk(self, PROTOCOLS[name]).routes()
        control = [Route("/counts", self._counts), Route("/faults", self._add_faults, methods=["POST"])]
        self.app = Starlette(routes=[*routes, *control])

    @contextmanager
    def running(self, port: int = 0) -> Iterator[str]:
        """Serve on loopback while the block runs; gives the address, without a path."""
        config = uvicorn.Config(
            self.app, host="127.0.0.1", port=port, log_level="critical", timeout_graceful_shutdown=1
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        while not server.started:
            if not thread.is_alive():
                raise RuntimeError(f"no server could be started on port {port}")
            time.sleep(0.005)
        try:
            yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(10)

    def _endpoint(self, speech: Speech) -> Any:
        async def endpoint(request: Request) -> Response:
            self.counts.requests += 1
            await request.body()
            fault = self.faults.popleft() if self.faults else Fault()
            await asyncio.sleep(self.latency + fault.delay)
            return await self._answer(speech, request, fault)

        return endpoint

    async def _answer(self, speech: Speech, request: Request, fault: Fault) -> Response:
        if self.key is not None and speech.key(request.headers) != self.key:
            return self._error(
                speech, 401, f"Incorrect API key provided: {speech.key(request.headers)}.", "invalid_api_key"
            )
        if fault.status != 200:
            return self._failure(speech, fault)
        body = json.loads(await request.body())
        self.bodies.append(body)
        self.headers.append(dict(request.headers))
        asked = speech.asked(body)
        # The query is read with each document.
        tokens = count_tokens([f"{asked.query or ''} {text}" for text in asked.texts])
        refusal = self._refusal(speech, asked.texts) or self._rate(speech, tokens) or self._quota(speech, tokens)
        if refusal is not None:
            return refusal
        vectors = await run_in_threadpool(self._compute, asked)
        answer = speech.answer(body, SPOILS[fault.spoil](list(enumerate(vectors))), tokens)
        content = fault.body if fault.body is not None else json.dumps(answer)
        self.count(asked.texts)
        headers = {**self._said(), **fault.headers, "x-request-id": f"req-{self.counts.requests}"}
        if fault.cut:
            return StreamingResponse(_cut(content.encode()), headers=headers, media_type="application/json")
        return Response(content, headers=headers, media_type="application/json")

    def _compute(self, asked: Asked) -> Any:
        if asked.query is not None:
            return self.judge(asked.query, asked.texts)[:, None]
        return shortened(self.encode(asked.texts), asked.dimensions)

    def count(self, texts: list[str]) -> int:
        """Count an answer as a provider bills it; its tokens."""
        tokens = count_tokens(texts)
        self.counts.answered += 1
        self.counts.texts += len(texts)
        self.counts.tokens += tokens
        return tokens

    def _failure(self, speech: Speech, fault: Fault) -> Response:
        self.counts.too_many += fault.status == 429
        if fault.body is not None:
            return Response(fault.body, fault.status, fault.headers)
        return self._error(speech, fault.status, fault.message, fault.code, fault.headers)

    def _quota(self, speech: Speech, tokens: int) -> Response | None:
        if self.quota is None or self.counts.tokens + tokens <= self.quota:
            return None
        self.counts.too_many += 1
        return self._error(speech, 429, "You exceeded your current quota.", "insufficient_quota")

    def _refusal(self, speech: Speech, texts: list[str]) -> Response | None:
        most = min(self.max_items or speech.most, speech.most)
        if not texts or len(texts) > most or "" in texts:
            self.counts.refused += 1
            return self._error(speech, 400, f"input must have 1 to {most} texts, none of them empty")
        if self.marker is not None and any(self.marker in text for text in texts):
            self.counts.refused += 1
            return self._error(speech, 400, "the input was flagged by a filter")
        return None

    def _rate(self, speech: Speech, tokens: int) -> Response | None:
        now = time.monotonic()
        while self._passed and self._passed[0][0] < now - self.window:
            self._passed.popleft()
        used = {"requests": len(self._passed) + 1, "tokens": sum(size for _, size in self._passed) + tokens}
        for name, limit in self.limits.items():
            if limit is not None and used[name] > limit * self.window / 60:
                self.counts.too_many += 1
                wait = self._passed[0][0] + self.window - now if self._passed else self.window
                return self._error(
                    speech, 429, f"too many {name}", "rate_limit_exceeded", {"retry-after-ms": f"{wait * 1000:.0f}"}
                )
        self._passed.append((now, tokens))
        return None

    def _said(self) -> dict[str, str]:
        if not self.say_limits:
            return {}
        used = {"requests": len(self._passed), "tokens": sum(size for _, size in self._passed)}
        said = {}
        for name, limit in self.limits.items():
            said[f"x-ratelimit-limit-{name}"] = str(limit if limit is not None else -1)
            said[f"x-ratelimit-remaining-{name}"] = str(-1 if limit is None else max(0, limit - used[name]))
        return said

    def _error(
        self, speech: Speech, status: int, message: str, code: str = "", headers: dict[str, str] | None = None
    ) -> Response:
        return JSONResponse(speech.error(status, message, code), status, headers)

    async def _counts(self, _: Request) -> Response:
        return JSONResponse(asdict(self.counts))

    async def _add_faults(self, request: Request) -> Response:
        self.faults.extend(Fault(**fault) for fault in await request.json())
        return JSONResponse(len(self.faults))


async def _cut(content: bytes) -> Any:
    yield content[: len(content) // 2]
    raise ConnectionResetError("a scripted cut")
