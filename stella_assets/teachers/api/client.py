"""The client of an embedding service: texts in, answers out as they come, within limits and budget."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from itertools import pairwise

import httpx2
import numpy as np

from stella_assets.teachers.api.answers import Answer, Refusal
from stella_assets.teachers.api.budget import Budget
from stella_assets.teachers.api.connect import new_client
from stella_assets.teachers.api.count import Counter
from stella_assets.teachers.api.errors import ApiError
from stella_assets.teachers.api.exchange import Counts, Exchange, Line
from stella_assets.teachers.api.failures import RefusedError, StoppedError, refusal
from stella_assets.teachers.api.key import Key
from stella_assets.teachers.api.limits import Limits
from stella_assets.teachers.api.packing import Batch, Packer
from stella_assets.teachers.api.rate import Pace
from stella_assets.teachers.api.retry import RetryPolicy
from stella_assets.teachers.api.service import Service

REFUSED_AT_FIRST = 8
"""Texts that a service refuses one by one, before it has answered any, until its settings are taken for the cause."""
CONNECT_SECONDS = 15.0
"""Seconds for a connection; a slow model answers on one that is open."""
UNREAD = "Correct the settings of `service`. What was answered is paid; nothing of it is stored."
OnAnswer = Callable[[Answer], None]


def _silent(_: str) -> None:
    pass


class ApiClient:
    """Asks one service for vectors. What it learns of the service's pace is kept between calls.

    Args:
        service: Service and model.
        key: None for a server that needs none.
        limits: Over the defaults of the dialect.
        policy: How long a request is tried.
        counter: How tokens are counted before they are sent; the dialect's own where not given.
        dim: Dimensions that vectors must have, where the service's settings do not say.
        say: Gets a line when something takes long.

    Attributes:
        limits: With the defaults of the dialect.

    Example:
        >>> client = ApiClient(OpenAiDialect(dialect="openai", model="text-embedding-3-small"), key)
        >>> refusals = client.embed(["one", "two"], "document", answers.append, Budget(max_tokens=1000))
    """

    def __init__(
        self,
        service: Service,
        key: str | None,
        limits: Limits | None = None,
        policy: RetryPolicy | None = None,
        counter: Counter | None = None,
        dim: int | None = None,
        say: Callable[[str], None] = _silent,
    ) -> None:
        self.limits = (limits or Limits()).over(service.limits())
        self._counter = counter or service.counter()
        self._packer, self._service = Packer(self.limits), service
        self._exchange = Exchange(
            service, None if key is None else Key(key), Pace(self.limits), policy or RetryPolicy(), dim, say
        )

    @property
    def dim(self) -> int | None:
        """Dimensions of the vectors; None before the first answer, where the settings do not say."""
        return self._exchange.dim

    @property
    def counts(self) -> Counts:
        """What was done so far."""
        return self._exchange.counts

    def embed(
        self,
        texts: Sequence[str],
        role: str | Sequence[str],
        on_answer: OnAnswer,
        budget: Budget,
        items: int | None = None,
    ) -> list[Refusal]:
        """Ask for the vectors of texts.

        Args:
            texts: With their prompts.
            role: What `Service.request` takes: of all texts, or of each; texts of two roles are asked for apart.
            on_answer: Is called with each answered request, in the order of answers, before the next one is read.
            budget: What may be spent. What is billed is counted in it.
            items: Texts of a request, at most; what the limits allow where not given.

        Returns:
            The texts that the service does not take, in their order; all others were answered.

        Raises:
            ApiError: The service refuses what another try does not mend, or does not answer.
            BudgetError: The next request could exceed the budget.
            Exception: What `on_answer` raises. In each case requests in flight are answered first.
        """
        packer = self._packer if items is None else self._packer.smaller(items)
        call = _Call(self._service, self._exchange, packer, texts, role, on_answer, budget)
        main = call.run(self.limits, self._counter)
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            asyncio.run(main)
        else:  # called from a notebook, whose loop is running in this thread
            with ThreadPoolExecutor(1) as pool:
                pool.submit(copy_context().run, asyncio.run, main).result()
        return sorted(call.refusals, key=lambda refusal: refusal.position)


class _Call:
    """One call of `ApiClient.embed`."""

    def __init__(
        self,
        service: Service,
        exchange: Exchange,
        packer: Packer,
        texts: Sequence[str],
        role: str | Sequence[str],
        on_answer: OnAnswer,
        budget: Budget,
    ) -> None:
        self._service, self._exchange, self._packer, self._texts = service, exchange, packer, texts
        self._roles = [role] * len(texts) if isinstance(role, str) else role
        self._on_answer, self._budget = on_answer, budget
        self.refusals: list[Refusal] = []
        self._alone = 0
        self._failure: Exception | None = None

    async def run(self, limits: Limits, counter: Counter) -> None:
        """Send all batches, `limits.concurrency` of them at once."""
        roles = self._roles
        tokens = counter.count([self._service.counted(*each) for each in zip(self._texts, roles, strict=True)])
        without = self._known_too_long(tokens, limits, counter)
        sent = [place for place in range(len(roles)) if place not in without]
        starts = {place for before, place in pairwise(sent) if roles[place] != roles[before]}
        batches = self._packer.batches(self._texts, tokens, without, starts)
        many = limits.concurrency or 1
        connections = httpx2.Limits(max_connections=many, max_keepalive_connections=many)
        timeout = httpx2.Timeout(limits.timeout, connect=min(CONNECT_SECONDS, limits.timeout or CONNECT_SECONDS))
        async with new_client(httpx2.AsyncClient, timeout=timeout, limits=connections) as http:
            line = Line(http, self._budget)
            await asyncio.gather(*(self._work(line, batches) for _ in range(many)))
        if self._failure is not None:
            raise self._failure

    def _known_too_long(self, tokens: Sequence[int], limits: Limits, counter: Counter) -> set[int]:
        """Set aside what the service would refuse for sure. Where there is only an upper bound, it decides itself."""
        longest = limits.item_tokens
        if longest is None or not counter.exact:
            return set()
        found = [position for position, count in enumerate(tokens) if count > longest]
        self.refusals += [
            Refusal(position, f"{tokens[position]:,} tokens, and the model takes {longest:,}") for position in found
        ]
        return set(found)

    async def _work(self, line: Line, batches: Iterator[Batch]) -> None:
        try:
            for batch in batches:
                await self._embed(line, batch)
                if line.stopped.is_set():
                    return
        except StoppedError:
            return
        except Exception as error:  # noqa: BLE001  # raised by `run`, when what is in flight and paid has been read
            self._failure = self._failure or error
            line.stopped.set()

    async def _embed(self, line: Line, batch: Batch) -> None:
        """Have a batch answered; one that is refused in halves, until the guilty text stands alone."""
        try:
            await self._ask(line, batch)
        except RefusedError as refused:
            if len(batch.positions) == 1:
                status, problem = refused.status, refused.problem
                told = refusal(self._exchange.server, status, problem)
                error = ApiError(f"{told.message} It refuses every text, one by one.", told.remedy)
                self._set_aside(batch.positions[0], f"status {status}: {problem.message}", error)
                return
            before = len(self.refusals)
            for half in batch.halves():
                await self._embed(line, half)
            if len(self.refusals) == before:
                # No text is guilty, so it was their number.
                self._packer.items = min(self._packer.items, len(batch.halves()[0].positions))

    async def _ask(self, line: Line, batch: Batch) -> None:
        budget, bound = self._budget, self._service.bound(batch.tokens)
        # What is in flight counts at its upper bound, and its answer may make room.
        while not budget.admits(bound) and budget.in_flight:
            await line.sleep(0.02)
        budget.reserve(bound)
        try:
            texts = [self._texts[position] for position in batch.positions]
            parsed = await self._exchange.ask(line, texts, self._roles[batch.positions[0]], bound)
        finally:
            budget.settle(bound, 0)
        positions = np.asarray(batch.positions, dtype=np.int64)
        read = np.array([index not in parsed.unread for index in range(len(positions))])
        self._on_answer(Answer(positions[read], parsed.vectors[read], parsed.tokens or 0, parsed.request_id))
        for index, reason in parsed.unread.items():
            words = f"{self._exchange.server} gives answers that cannot be used: {reason}. So it is with every text."
            self._set_aside(batch.positions[index], reason, ApiError(words, UNREAD))

    def _set_aside(self, position: int, reason: str, error: ApiError) -> None:
        """Go on without a text; not where no text at all gets an answer, which is due to the settings."""
        self.refusals.append(Refusal(position, reason))
        self._alone += 1
        if self._exchange.counts.texts == 0 and self._alone >= min(REFUSED_AT_FIRST, len(self._texts)):
            raise error
