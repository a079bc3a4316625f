"""Texts answered by a provider's batch API: hand in, wait, fetch; a killed run goes on where it stopped."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stella_assets.storage.files import replace_atomically
from stella_assets.storage.keys import Keys, Positions
from stella_assets.teachers.api.answers import unit_vectors
from stella_assets.teachers.api.batches import DONE, Batch, BatchService
from stella_assets.teachers.api.budget import Budget
from stella_assets.teachers.api.dialects.base import BatchForm, Dialect
from stella_assets.teachers.api.errors import AnswerError, ApiError
from stella_assets.teachers.api.failures import GO_ON
from stella_assets.teachers.api.limits import Limits
from stella_assets.teachers.api.orders import Order, Orders
from stella_assets.teachers.api.packing import BODY_BYTES, Packer
from stella_assets.teachers.api.service import Request

COLLECTED = "collected"
POLL_SECONDS = 30.0
"""Between two looks at a batch, which takes minutes or hours."""


@dataclass(frozen=True)
class Delivered:
    """The answer to one request of a batch.

    Attributes:
        fingerprint: Of the vectors that were asked for.
        keys: Of its texts.
        vectors: `[n, dim]` float32, of unit norm.
        tokens: As billed.
        request: The service's name of it.
    """

    fingerprint: str
    keys: Keys
    vectors: np.ndarray
    tokens: int
    request: str


class Delivery:
    """Has texts answered in batches.

    Args:
        service: A dialect with a `batch_form`.
        api: Its batch API.
        orders: What was handed in before.
        limits: Of the service.
        dim: Dimensions of its vectors.
        on_answer: Is called with each answered request, before the next one is read.
        say: Gets a line where a person should know.
    """

    def __init__(
        self,
        service: Dialect,
        api: BatchService,
        orders: Orders,
        limits: Limits,
        dim: int,
        on_answer: Callable[[Delivered], None],
        say: Callable[[str], None],
    ) -> None:
        assert service.batch_form is not None, "the settings were validated"
        self._form: BatchForm = service.batch_form
        self._service, self._api, self._orders, self._dim = service, api, orders, dim
        self._limits = limits.over(service.limits())
        self._on_answer, self._say = on_answer, say

    def resume(self, budget: Budget) -> None:
        """Fetch what an earlier run has handed in, waiting for it.

        Args:
            budget: Counts what is in flight.

        Raises:
            ApiError: A batch failed, or the service cannot be used.
        """
        for order in list(self._orders):
            if not order.batch and order.status != COLLECTED:
                # Killed between handing in and the answer: the service knows whether the batch was begun.
                batch = self._api.begun(order.file) if order.file else None
                if batch is None:
                    self._orders.drop(order)
                else:
                    self._orders.write(order, batch=batch.name)
        for order in self._open():
            budget.in_flight += order.bound
            self._say(
                f"Batch {order.batch} with {sum(order.sizes):,} texts was handed in by an earlier run; its answers are "
                "waited for, and its texts are not sent again."
            )
        self.wait(budget)

    def hand_in(
        self, fingerprint: str, keys: Keys, read: Callable[[Positions], list[str]], role: str, budget: Budget
    ) -> None:
        """Begin batches with texts. `wait` fetches their answers.

        Args:
            fingerprint: Of the vectors.
            keys: Of the texts.
            read: The texts at positions, with their prompts.
            role: Of all.
            budget: What may be spent.

        Raises:
            BudgetError: A batch could exceed it; those before are begun.
            ApiError: The service cannot be used.
        """
        for start in range(0, len(keys), self._form.texts):
            at = np.arange(start, min(start + self._form.texts, len(keys)))
            self._hand_in(fingerprint, keys[at], read(at), role, budget)

    def _open(self) -> list[Order]:
        return [order for order in self._orders if order.batch and order.status != COLLECTED]

    def _hand_in(self, fingerprint: str, keys: Keys, texts: list[str], role: str, budget: Budget) -> None:
        counter = self._service.counter()
        counts = counter.count(texts)
        longest = self._limits.item_tokens if counter.exact else None
        # One of them would fail its whole request; outside of batches it is set aside.
        too_long = {at for at, count in enumerate(counts) if longest and count > longest}
        packer = Packer(self._limits.over(Limits(request_bytes=self._form.bytes // 8)))
        requests = [
            (self._service.request([texts[at] for at in batch.positions], role), batch)
            for batch in packer.batches(texts, counts, too_long)
        ]
        for part in self._parts(requests):
            sizes, bound = tuple(len(b.positions) for _, b in part), sum(b.total for _, b in part)
            budget.reserve(bound)
            at = [position for _, b in part for position in b.positions]
            order = self._orders.add(fingerprint, keys[at], sizes, bound)
            order = self._orders.write(order, file=self._upload(order, [request for request, _ in part]))
            batch = self._api.begin(order.file, part[0][0])
            self._orders.write(order, batch=batch.name)
            self._say(
                f"Batch {batch.name} with {len(at):,} texts is handed in; it is answered within {self._form.window}."
            )

    def _parts(self, requests: Sequence[tuple[Request, Any]]) -> Iterator[list[tuple[Request, Any]]]:
        """Requests within the limits of one batch."""
        part: list[tuple[Request, Any]] = []
        size = 0
        for request, batch in requests:
            length = len(json.dumps(request.body)) + BODY_BYTES
            if part and (size + length > self._form.bytes or len(part) >= self._form.requests):
                yield part
                part, size = [], 0
            part.append((request, batch))
            size += length
        if part:
            yield part

    def _upload(self, order: Order, requests: Sequence[Request]) -> str:
        path = self._orders.folder / f"{order.name}.jsonl"
        with replace_atomically(path) as fresh, fresh.open("w", encoding="utf-8") as file:
            for number, request in enumerate(requests):
                line = self._service.batch_line(f"{order.name}-{number}", request)
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
        try:
            return self._api.upload(path)
        finally:
            path.unlink()  # the texts are in the corpus

    def wait(self, budget: Budget) -> None:
        """Fetch all open batches as they are answered.

        Raises:
            ApiError: A batch failed, or the service cannot be used.
        """
        failed: list[Batch] = []
        open_orders = self._open()
        while open_orders:
            left = []
            for order in open_orders:
                batch = self._api.look(order.batch)
                if batch.ended:
                    budget.settle(order.bound, self._collect(order, batch))
                    failed += [batch] if batch.status != DONE else []
                else:
                    left.append(order)
            open_orders = left
            if open_orders:
                time.sleep(POLL_SECONDS)
        if failed:
            words = f": {failed[0].words}" if failed[0].words else ""
            raise ApiError(f"{self._service.base_url}: batch {failed[0].name} {failed[0].status}{words}.", GO_ON)

    def _collect(self, order: Order, batch: Batch) -> int:
        """Hand over the answers of a batch; the tokens that were billed."""
        asked = {f"{order.name}-{number}": keys for number, keys in enumerate(self._orders.keys(order))}
        billed, unanswered, words = 0, 0, ""
        for line in self._api.results(batch):
            if (wanted := asked.get(str(line.get("custom_id")))) is None:
                self._say(f"Batch {batch.name}: a line of its answers has no `custom_id` that was handed in.")
                continue
            try:
                delivered = self._read(order, wanted, line.get("response") or {})
            except AnswerError as error:
                unanswered, words = unanswered + len(wanted), self._api.words(line) or error.reason
                continue
            billed += delivered.tokens
            self._on_answer(delivered)
        if unanswered:
            self._say(
                f"Batch {batch.name}: {unanswered:,} texts were not answered, the last because: {words}. They are "
                "asked for outside of batches, at the price of that."
            )
        self._orders.write(order, status=COLLECTED)
        return billed

    def _read(self, order: Order, keys: Keys, response: dict[str, Any]) -> Delivered:
        if response.get("status_code") != 200:
            raise AnswerError("it is not answered")
        parsed = self._service.read(response.get("body"), len(keys))
        vectors = unit_vectors(parsed.vectors, self._dim)
        request = str(response.get("request_id") or parsed.request_id)
        return Delivered(order.fingerprint, keys, vectors, parsed.tokens or 0, request)
