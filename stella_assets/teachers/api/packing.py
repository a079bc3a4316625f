"""Texts into requests, within the limits of a service."""

from __future__ import annotations

import json
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass

from stella_assets.teachers.api.limits import Limits

BODY_BYTES = 4_096
"""Of a request in addition to its texts."""
TEXT_BYTES = 512
"""Of a text in addition to itself: commas, and what some services want said with every text."""
# A request of a whole minute's tokens would be refused if anything else was sent in that minute.
REQUESTS_OF_A_MINUTE = 8
"""Requests that the tokens of a minute are spread over, at least."""


@dataclass(frozen=True)
class Batch:
    """Texts of one request.

    Attributes:
        positions: Into the texts that were given.
        tokens: Of each, an upper bound.
    """

    positions: tuple[int, ...]
    tokens: tuple[int, ...]

    @property
    def total(self) -> int:
        """Tokens of all, an upper bound."""
        return sum(self.tokens)

    def halves(self) -> tuple[Batch, Batch]:
        """The batch in two."""
        middle = (len(self.positions) + 1) // 2
        first = Batch(self.positions[:middle], self.tokens[:middle])
        return first, Batch(self.positions[middle:], self.tokens[middle:])


class Packer:
    """Cuts texts into batches, in their order.

    Args:
        limits: With the defaults of the dialect.

    Attributes:
        items: Texts of a request; lowered when a service turns out to take fewer.
    """

    def __init__(self, limits: Limits) -> None:
        shares = [limits.items or 1, limits.texts_per_minute or limits.items or 1]
        self._limits = limits
        self.items = min(shares)
        tokens = [limits.request_tokens, limits.tokens_per_minute and limits.tokens_per_minute // REQUESTS_OF_A_MINUTE]
        self._tokens = min((limit for limit in tokens if limit), default=None)
        self._bytes = limits.request_bytes

    def smaller(self, items: int) -> Packer:
        """One whose batches have at most so many texts."""
        return Packer(self._limits.model_copy(update={"items": min(items, self.items)}))

    def batches(
        self,
        texts: Sequence[str],
        tokens: Sequence[int],
        without: Container[int] = frozenset(),
        starts: Container[int] = frozenset(),
    ) -> Iterator[Batch]:
        """The batches, made when they are asked for.

        Args:
            texts: With their prompts.
            tokens: Of each, an upper bound. One that is above the limit of a request goes alone: the bound may be
                far above the truth, and the service says so if it is not.
            without: Positions that are left out.
            starts: Positions that are not in a batch with earlier ones.
        """
        batch: list[int] = []
        total, size = 0, BODY_BYTES
        for position, count in enumerate(tokens):
            if position in without:
                continue
            length = self._length(texts[position])
            if batch and (
                len(batch) >= self.items
                or position in starts
                or (self._tokens and total + count > self._tokens)
                or (self._bytes and size + length > self._bytes)
            ):
                yield Batch(tuple(batch), tuple(tokens[each] for each in batch))
                batch, total, size = [], 0, BODY_BYTES
            batch.append(position)
            total, size = total + count, size + length
        if batch:
            yield Batch(tuple(batch), tuple(tokens[each] for each in batch))

    def _length(self, text: str) -> int:
        # Only counted where it is limited. JSON writes a quotation mark as two characters.
        return TEXT_BYTES + len(json.dumps(text, ensure_ascii=False).encode()) if self._bytes else 0
