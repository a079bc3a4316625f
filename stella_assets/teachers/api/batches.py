"""The batch APIs of providers: files of requests are handed in, and files of answers are fetched hours later."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx2

from stella_assets.teachers.api.connect import new_client
from stella_assets.teachers.api.dialects.base import Dialect
from stella_assets.teachers.api.errors import ApiError
from stella_assets.teachers.api.failures import GO_ON, PassingError, clean, lost, not_answered, read_problem, refusal
from stella_assets.teachers.api.key import Key
from stella_assets.teachers.api.retry import TOO_MANY, RetryPolicy, asked_wait, is_passing
from stella_assets.teachers.api.service import Request

T = TypeVar("T")
TIMEOUT = 300.0
"""Seconds without a byte; files have hundreds of megabytes."""
LISTED = 100
"""Batches of a page of the service's list, the newest first."""
DONE, ENDED = "completed", ("completed", "failed", "expired", "cancelled")


@dataclass(frozen=True)
class Batch:
    """Where a batch stands.

    Attributes:
        name: The service's.
        file: Its name of the file of requests.
        status: Its word.
        results: Its names of files with answers, also with those that are errors.
        words: Why the batch failed as a whole; empty where it did not.
    """

    name: str
    file: str
    status: str
    results: tuple[str, ...]
    words: str = ""

    @classmethod
    def read(cls, body: dict[str, Any]) -> Self:
        """From what a service says of it."""
        results = tuple(body[part] for part in ("output_file_id", "error_file_id") if body.get(part))
        errors = (body.get("errors") or {}).get("data") or []
        words = "; ".join(str(error.get("message")) for error in errors)
        return cls(str(body["id"]), str(body["input_file_id"]), str(body["status"]), results, words[:300])

    @property
    def ended(self) -> bool:
        """Whether nothing more will come of it."""
        return self.status in ENDED


class BatchService:
    """The batch API of a service, for `with`.

    Args:
        service: A dialect with a `batch_form`.
        key: Of the account.
        policy: How long a call is tried.
    """

    def __init__(self, service: Dialect, key: str | None, policy: RetryPolicy | None = None) -> None:
        self._service, self._policy = service, policy or RetryPolicy()
        self._key = None if key is None else Key(key)
        headers = {} if self._key is None else service.authorise(self._key.reveal())
        self._http = new_client(httpx2.Client, timeout=TIMEOUT, headers=headers)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def upload(self, path: Path) -> str:
        """Hand in a file of requests; nothing is computed yet.

        Returns:
            The service's name of it.
        """

        def send() -> httpx2.Response:
            with path.open("rb") as file:
                part = {"file": (path.name, file, "application/jsonl")}
                return self._http.post(self._url("/files"), data={"purpose": "batch"}, files=part)

        return self._read(self._call(send), lambda body: str(body["id"]))

    def begin(self, file: str, request: Request) -> Batch:
        """Have the requests of a file answered. From here on it is paid.

        Args:
            file: The service's name of it.
            request: Any one of them.
        """
        order = self._service.batch_order(file, request)
        reply = self._call(lambda: self._http.post(self._url("/batches"), json=order), once=True)
        return self._read(reply, Batch.read)

    def begun(self, file: str) -> Batch | None:
        """The batch that was begun with a file; None where there is none."""
        page: dict[str, Any] = {"limit": LISTED}
        while True:
            reply = self._call(lambda: self._http.get(self._url("/batches"), params=page))
            batches, more = self._read(reply, lambda body: ([*map(Batch.read, body["data"])], body.get("has_more")))
            if found := next((batch for batch in batches if batch.file == file), None):
                return found
            if not more or not batches:
                return None
            page["after"] = batches[-1].name

    def look(self, name: str) -> Batch:
        """Where a batch stands."""
        return self._read(self._call(lambda: self._http.get(self._url(f"/batches/{name}"))), Batch.read)

    def results(self, batch: Batch) -> Iterator[dict[str, Any]]:
        """The lines of its answers, in any order, `{}` for what is no object; read as they come: files are large."""
        for name in batch.results:
            read, tries, whole = 0, 0, False
            while not whole:
                try:
                    for number, line in enumerate(self._lines(name)):
                        if number >= read:
                            read = number + 1
                            yield _object(line)
                    whole = True
                except PassingError as failure:
                    tries += 1
                    self._pause(failure, tries)

    def words(self, line: dict[str, Any]) -> str:
        """Why a line has no answer; empty where it has one."""
        response = line.get("response") or {}
        if response.get("status_code") == 200:
            return ""
        return clean(self._service.problem(response.get("body") or line.get("error") or {}).message, self._key)

    def _lines(self, name: str) -> Iterator[str]:
        try:
            with self._http.stream("GET", self._url(f"/files/{name}/content")) as reply:
                if not reply.is_success:
                    reply.read()
                    raise self._failure(reply)
                yield from (line for line in reply.iter_lines() if line.strip())
        except httpx2.RequestError as error:
            raise lost(error, self._key) from None

    def _url(self, path: str) -> str:
        return self._service.base_url + path

    def _read(self, reply: httpx2.Response, part: Callable[[dict[str, Any]], T]) -> T:
        try:
            return part(reply.json())
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ApiError(
                f"{self._service.base_url} answers what its documentation of batches does not say: "
                f"{clean(reply.text, self._key):.100}",
                GO_ON,
            ) from None

    def _call(self, send: Any, once: bool = False) -> httpx2.Response:
        """Try a call.

        Args:
            send: Makes it.
            once: Whether it must not be made again where nobody knows what came of it.
        """
        tries = 0
        while True:
            tries += 1
            try:
                reply: httpx2.Response = send()
            except httpx2.RequestError as error:
                failure = lost(error, self._key)
                unclear = not failure.unreachable
            else:
                if reply.is_success:
                    return reply
                failure = self._failure(reply)
                unclear = reply.status_code != TOO_MANY
            if once and unclear:
                raise ApiError(
                    f"{self._service.base_url} was asked to begin a batch, and its answer was lost ({failure.words}).",
                    "Run it again: it is looked up whether the batch was begun, and it is not begun twice.",
                )
            self._pause(failure, tries)

    def _failure(self, reply: httpx2.Response) -> PassingError:
        problem = read_problem(self._service, self._key, reply)
        if not is_passing(reply.status_code, reply.headers) or self._service.is_exhausted(problem):
            raise refusal(self._service.base_url, reply.status_code, problem)
        return PassingError(f"status {reply.status_code}: {problem.message}", asked=asked_wait(reply.headers))

    def _pause(self, failure: PassingError, tries: int) -> None:
        wait = self._policy.wait(tries, failure.asked)
        if tries >= self._policy.tries or wait > self._policy.patience:
            raise not_answered(self._service.base_url, failure, tries, self._policy.longest)
        time.sleep(wait)


def _object(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
