"""Batches that were handed in to a service: which texts they hold, and where they stand. They outlive a killed run."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from stella_assets.core.errors import UserError
from stella_assets.storage.files import file_digest, replace_atomically, write_atomically
from stella_assets.storage.keys import Keys
from stella_assets.storage.sealed import seal, unseal

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
        keys_digest: Of the file with the keys of its texts; empty in orders of older versions.
    """

    name: str
    fingerprint: str
    sizes: tuple[int, ...]
    bound: int
    file: str = ""
    batch: str = ""
    status: str = ""
    keys_digest: str = ""


class OrderError(UserError):
    """What is noted of a batch is not as it was written, so nobody knows which texts its answers belong to."""


class Orders:
    """The batches of one service in a workspace.

    Args:
        service: Folder of the service.

    Attributes:
        folder: Made with the first order.
    """

    def __init__(self, service: Path) -> None:
        self.folder = service / "orders"

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
        name = f"{stamp}-{secrets.token_hex(4)}"
        with replace_atomically(path := self.folder / f"{name}{KEYS}") as fresh:
            fresh.write_bytes(np.ascontiguousarray(keys).tobytes())
        return self.write(Order(name, fingerprint, sizes, bound, keys_digest=file_digest(path)))

    def write(self, order: Order, file: str = "", batch: str = "", status: str = "") -> Order:
        """Note where an order stands.

        Returns:
            The order with what is given.
        """
        order = replace(order, file=file or order.file, batch=batch or order.batch, status=status or order.status)
        write_atomically(self.folder / f"{order.name}.json", json.dumps(seal(asdict(order))))
        return order

    def keys(self, order: Order) -> list[Keys]:
        """The keys of the texts of each request.

        Raises:
            OrderError: They are not those that were noted.
        """
        path = self.folder / f"{order.name}{KEYS}"
        if not path.is_file() or order.keys_digest not in ("", file_digest(path)):
            raise _damaged(path)
        return np.split(np.frombuffer(path.read_bytes(), dtype="S16"), np.cumsum(order.sizes)[:-1])

    def drop(self, order: Order) -> None:
        """Forget an order that was never begun."""
        for suffix in (".json", KEYS):
            (self.folder / f"{order.name}{suffix}").unlink(missing_ok=True)

    def __iter__(self) -> Iterator[Order]:
        """All orders, the oldest first.

        Raises:
            OrderError: One is not as it was written.
        """
        for path in sorted(self.folder.glob("*.json")):
            yield self.read(path)

    def read(self, path: Path) -> Order:
        """The order of a file.

        Raises:
            OrderError: It is not as it was written.
        """
        try:
            raw = unseal(json.loads(path.read_text(encoding="utf-8")))
            return Order(**{**raw, "sizes": tuple(raw["sizes"])})
        except (OSError, ValueError, KeyError, TypeError):
            raise _damaged(path) from None

    def damages(self) -> Iterator[OrderError]:
        """What is damaged."""
        for path in sorted(self.folder.glob("*.json")):
            try:
                self.keys(self.read(path))
            except OrderError as error:
                yield error


def _damaged(path: Path) -> OrderError:
    return OrderError(
        f"{path}: is damaged, and says which texts the answers of a batch belong to.",
        f"Restore it from a backup, or remove {path.with_suffix('.*')}: what the journal lacks of that batch is then "
        "asked for and paid again.",
    )
