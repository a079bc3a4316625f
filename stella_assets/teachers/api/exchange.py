"""One request, sent until it is answered or known not to be."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import httpx2

from stella_assets.teachers.api.answers import Parsed
from stella_assets.teachers.api.budget import Budget
from stella_assets.teachers.api.errors import AnswerError
from stella_assets.teachers.api.failures import (
    SETTINGS,
    PassingError,
    RefusedError,
    StoppedError,
    lost,
    not_answered,
    not_reached,
    read_problem,
    refusal,
    unusable_answer,
)
from stella_assets.teachers.api.key import Key
from stella_assets.teachers.api.rate import Pace
from stella_assets.teachers.api.retry import ABOUT_TEXTS, TOO_MANY, RetryPolicy, asked_wait, is_passing
from stella_assets.teachers.api.service import Service

LONG_WAIT = 5.0
"""Seconds of a wait that a person is told of."""


@dataclass
class Counts:
    """What a client did.

    Attributes:
        requests: Sent, with those that were sent again.
        answered: With vectors that are good.
        texts: Whose vectors are good.
        tokens: As billed.
        too_many: Requests that were refused with 429.
        retried: Requests that were sent again, for any reason.
    """

    requests: int = 0
    answered: int = 0
    texts: int = 0
    tokens: int = 0
    too_many: int = 0
    retried: int = 0


@dataclass
class Line:
    """What the requests of one call share.

    Attributes:
        http: Connections.
        budget: What may be spent.
        turn: Held by the request that is sent next.
        stopped: Set when one request failed for good.
    """

    http: httpx2.AsyncClient
    budget: Budget
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    stopped: asyncio.Event = field(default_factory=asyncio.Event)

    async def sleep(self, seconds: float) -> None:
        """Wait.

        Raises:
            StoppedError: Another request fails meanwhile.
        """
        try:
            await asyncio.wait_for(self.stopped.wait(), seconds)
        except TimeoutError:
            return
        raise StoppedError


class Exchange:
    """Sends requests of one service, each until it is answered.

    Args:
        service: How to ask, and how to read answers.
        key: None for a server that needs none.
        pace: When to send.
        policy: How long to try.
        dim: Dimensions that vectors must have, where the service's settings do not say.
        say: Gets a line when something takes long.

    Attributes:
        server: Its address.
        dim: Dimensions of the vectors; None before the first answer, where the settings do not say.
        counts: What was done.
    """

    def __init__(
        self,
        service: Service,
        key: Key | None,
        pace: Pace,
        policy: RetryPolicy,
        dim: int | None,
        say: Callable[[str], None],
    ) -> None:
        self._service, self._key, self._pace, self._policy, self._say = service, key, pace, policy, say
        self.server = service.base_url
        self.dim = service.dim() or dim
        self.counts = Counts()
        # Tokens that were billed, and what was their upper bound.
        self._billed, self._bounds = 0, 0

    async def ask(self, line: Line, texts: Sequence[str], role: str, bound: int) -> Parsed:
        """What the service answers about the texts of one request.

        Args:
            line: Connections and budget.
            texts: With their prompts.
            role: Of all.
            bound: Of what is billed.

        Returns:
            Vectors as they are kept, and what was billed.

        Raises:
            RefusedError: The service does not take one of the texts, or not so many.
            ApiError: It refuses for another reason, or gives no answer that can be used.
            StoppedError: Another request failed.
        """
        request = self._service.request(texts, role)
        body = json.dumps(request.body, ensure_ascii=False).encode()
        headers = {"Content-Type": "application/json", **request.headers}
        if self._key is not None:
            headers |= self._service.authorise(self._key.reveal())
        message = line.http.build_request("POST", self.server + request.path, content=body, headers=headers)
        waited, tries, unusable = 0.0, 0, 0
        while True:
            expected = await self._admit(line, len(texts), bound)
            sent = self._pace.clock()
            try:
                reply = await self._send(line, message, expected)
                return self._read(reply, len(texts), expected, bound, line.budget)
            except PassingError as error:
                failure = error
            tries += 1
            unusable += failure.unusable is not None
            wait = self._policy.wait(tries, failure.asked)
            if failure.too_many:
                self.counts.too_many += 1
                self._pace.refused(sent, wait)
            # Not by the clock: a request may stand in line for long where little is allowed in a minute.
            waited += wait
            self._give_up(failure, tries, unusable, waited)
            if wait >= LONG_WAIT:
                self._say(f"{self.server}: {failure.words}; the next try is in {wait:.0f} s.")
            self.counts.retried += 1
            await line.sleep(wait)

    async def _admit(self, line: Line, texts: int, bound: int) -> float:
        # First come, first served: small requests would else always come before a large one.
        async with line.turn:
            while True:
                expected = bound * (self._billed / self._bounds if self._bounds else 1.0)
                wait = self._pace.delay(texts, expected)
                if line.stopped.is_set():
                    raise StoppedError
                if wait <= 0:
                    self._pace.take(texts, expected)
                    return expected
                # Answers that come meanwhile give tokens back.
                await line.sleep(min(wait, 0.1))

    async def _send(self, line: Line, message: httpx2.Request, expected: float) -> httpx2.Response:
        self.counts.requests += 1
        try:
            reply = await line.http.send(message)
        except httpx2.RequestError as error:
            failure = lost(error, self._key)
            if not failure.unreachable:
                # An answer that was lost on its way is billed, most likely.
                line.budget.settle(0, round(expected))
            raise failure from None
        self._pace.learn(reply.headers)
        if reply.status_code == 200:
            return reply
        status, problem = reply.status_code, read_problem(self._service, self._key, reply)
        exhausted = problem.code in self._service.exhausted or (
            status == TOO_MANY and self._service.is_exhausted(problem)
        )
        if status in ABOUT_TEXTS and problem.param not in SETTINGS and not exhausted:
            raise RefusedError(status, problem)
        if exhausted or not is_passing(status, reply.headers):
            raise refusal(self.server, status, problem, exhausted)
        waits = [wait for wait in (asked_wait(reply.headers), problem.wait) if wait is not None]
        raise PassingError(f"status {status}: {problem.message}", status == TOO_MANY, max(waits, default=None))

    def _read(self, reply: httpx2.Response, count: int, expected: float, bound: int, budget: Budget) -> Parsed:
        try:
            parsed = _parsed(self._service, reply, count)
            billed = bound if parsed.tokens is None else parsed.tokens
            self._billed, self._bounds = self._billed + billed, self._bounds + bound
            self._pace.settle(expected, billed)
            # An answer that cannot be used is billed, too.
            budget.settle(0, billed)
            self.counts.tokens += billed
            vectors = self._service.accept(parsed.vectors, self.dim)
        except AnswerError as error:
            if not error.passing:
                raise unusable_answer(self.server, error) from None
            raise PassingError(f"an answer that cannot be used: {error.reason}", unusable=error) from None
        self.dim = vectors.shape[1]
        self.counts.answered += 1
        self.counts.texts += count - len(parsed.unread)
        name = parsed.request_id or reply.headers.get("x-request-id", "")
        return replace(parsed, vectors=vectors, tokens=billed, request_id=name)

    def _give_up(self, failure: PassingError, tries: int, unusable: int, seconds: float) -> None:
        policy, server = self._policy, self.server
        if failure.unusable is not None and unusable >= policy.answers:
            raise unusable_answer(server, failure.unusable)
        if failure.unreachable and not self.counts.answered and tries >= policy.unreachable:
            raise not_reached(server, failure)
        if seconds > policy.patience or (not failure.too_many and tries >= policy.tries):
            raise not_answered(server, failure, tries, policy.longest)


def _parsed(service: Service, reply: httpx2.Response, count: int) -> Parsed:
    try:
        answer = reply.json()
    except ValueError:
        raise AnswerError("it is not JSON") from None
    return service.read(answer, count)
