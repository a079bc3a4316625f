"""Batches that were handed in to a service: which texts they hold, and where they stand. They outlive a killed run."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from stella_assets.storage.files import replace_atomically, write_atomically
from stella_assets.storage.keys import Keys

KEYS = ".keys"


@dataclass(frozen=True)
class Order:
    """One batch.

    Attributes:
        name: Of its files here.
        fingerprint: Of the vectors that it asks for.
        sizes: Texts of each of its requests.
        bound: Upper bound of its tokens.
        file: The service's name of the file of requests; empty before it was handed in.
        batch: The service's name of the batch; empty before it was begun.
        status: The service's last word; `collected` once its answers are in the journal.
    """

    name: str
    fingerprint: str
    sizes: tuple[int, ...]
    bound: int
    file: str = ""
    batch: str = ""
    status: str = ""


class Orders:
    """The batches of one service in a workspace.

    Args:
        folder: Made with the first order.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, fingerprint: str, keys: Keys, sizes: tuple[int, ...], bound: int) -> Order:
        """Note what a batch will hold, before it is handed in.

        Args:
            fingerprint: Of the vectors.
            keys: Of its texts, in the order of its requests.
            sizes: Texts of each request.
            bound: Of their tokens.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        order = Order(f"{stamp}-{secrets.token_hex(4)}", fingerprint, sizes, bound)
        with replace_atomically(self.folder / f"{order.name}{KEYS}") as fresh:
            fresh.write_bytes(np.ascontiguousarray(keys).tobytes())
        self.write(order)
        return order

    def write(self, order: Order, file: str = "", batch: str = "", status: str = "") -> Order:
        """Note where an order stands.

        Returns:
            The order with what is given.
        """
        order = replace(order, file=file or order.file, batch=batch or order.batch, status=status or order.status)
        write_atomically(self.folder / f"{order.name}.json", json.dumps(asdict(order)))
        return order

    def keys(self, order: Order) -> list[Keys]:
        """The keys of the texts of each request."""
        content = (self.folder / f"{order.name}{KEYS}").read_bytes()
        return np.split(np.frombuffer(content, dtype="S16"), np.cumsum(order.sizes)[:-1])

    def drop(self, order: Order) -> None:
        """Forget an order that was never begun."""
        for suffix in (".json", KEYS):
            (self.folder / f"{order.name}{suffix}").unlink(missing_ok=True)

    def __iter__(self) -> Iterator[Order]:
        """All orders, the oldest first."""
        for path in sorted(self.folder.glob("*.json")):
            raw = json.loads(path.read_text(encoding="utf-8"))
            yield Order(**{**raw, "sizes": tuple(raw["sizes"])})
