"""How requests fail, and what a person reads of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import httpx2

from stella_assets.teachers.api.errors import AnswerError, ApiError
from stella_assets.teachers.api.key import Key
from stella_assets.teachers.api.retry import TOO_MANY
from stella_assets.teachers.api.service import Problem, Service

MOVED = "Correct `base_url`. A redirect is not followed, as it could take the key to somebody else."
REMEDIES = {
    **dict.fromkeys((301, 302, 303, 307, 308), MOVED),
    400: "Correct the settings of `service`.",
    401: "Set the environment variable that `key` names to a valid key.",
    402: "Add credit to the account.",
    403: "Ask the owner of the account for access to this model, or use another key.",
    404: "Correct `model` or `base_url`.",
    TOO_MANY: "Add credit or raise the account's limit, and run it again; what was answered is kept.",
}
REMEDY = "Look at the service's documentation of this error."
GO_ON = "Run it again later; what was answered is kept, and nothing of it is sent again."
SETTINGS = frozenset({"model", "dimensions", "encoding_format", "output_dimension", "output_dtype", "task"})
"""Parts of a request that are not texts."""


class RefusedError(Exception):
    """The service does not take the texts of a request, or not so many at once.

    Args:
        status: Of the answer.
        problem: What it says.
    """

    def __init__(self, status: int, problem: Problem) -> None:
        super().__init__(problem.message)
        self.status, self.problem = status, problem


class StoppedError(Exception):
    """Another request failed for good, so this one is not sent again."""


class PassingError(Exception):
    """A try failed in a way that another one may mend.

    Args:
        words: What happened.
        too_many: Whether the service refused it as one request too many.
        asked: Seconds that it asks to wait.
        unusable: The answer's fault, where there was one.
        unreachable: Whether there was no connection at all.
    """

    def __init__(
        self,
        words: str,
        too_many: bool = False,
        asked: float | None = None,
        unusable: AnswerError | None = None,
        unreachable: bool = False,
    ) -> None:
        super().__init__(words)
        self.words, self.too_many, self.asked = words, too_many, asked
        self.unusable, self.unreachable = unusable, unreachable


def lost(error: httpx2.RequestError, key: Key | None) -> PassingError:
    """A request without an answer, as a failure that another try may mend; the server may have sent the key back."""
    unreachable = isinstance(error, (httpx2.ConnectError, httpx2.ConnectTimeout))
    return PassingError(clean(f"{type(error).__name__} {error}", key), unreachable=unreachable)


def read_problem(service: Service, key: Key | None, reply: httpx2.Response) -> Problem:
    """What an answer with an error says, cut and without the key."""
    try:
        body: Any = reply.json()
    except ValueError:
        body = reply.text
    problem = service.problem(body)
    return replace(problem, message=clean(problem.message, key) or reply.reason_phrase)


def clean(words: str, key: Key | None) -> str:
    """Words of a service, on one line, cut, without the key and without what a terminal would obey."""
    printable = "".join(letter if letter.isprintable() else " " for letter in words)
    line = " ".join(printable.split())
    return (line if key is None else key.hide(line))[:300]


def refusal(server: str, status: int, problem: Problem, exhausted: bool = False) -> ApiError:
    """What a person reads of an error that another try does not mend.

    Args:
        server: Its address.
        status: Of the answer.
        problem: What it says.
        exhausted: Whether the account has no more, which some providers say with 400.
    """
    words = f"{server} refuses with status {status}: {_sentence(problem.message)}"
    return ApiError(words, REMEDIES[TOO_MANY] if exhausted else REMEDIES.get(status, REMEDY))


def unusable_answer(server: str, error: AnswerError) -> ApiError:
    """The same of answers with status 200 that cannot be used."""
    remedy = GO_ON if error.passing else "Correct `model`, `dimensions` or `dim`."
    return ApiError(
        f"{server} gives an answer that cannot be used: {error.reason}.", f"Nothing of it is stored. {remedy}"
    )


def not_reached(server: str, failure: PassingError) -> ApiError:
    """The same of a server that nobody could connect to."""
    return ApiError(
        f"{server} cannot be reached: {_sentence(failure.words)}",
        "Correct `base_url`, start the server, or look at the network.",
    )


def not_answered(server: str, failure: PassingError, tries: int, longest: float) -> ApiError:
    """The same of a request that was tried for long enough.

    Args:
        server: Its address.
        failure: Of the last try.
        tries: In all.
        longest: Seconds; what the service asks for is said where it is more.
    """
    wish = f" It asks to wait for {failure.asked:,.0f} s." if (failure.asked or 0) > longest else ""
    words = f"{server} did not answer a request. Tries: {tries}; the last: {_sentence(failure.words)}{wish}"
    return ApiError(words, GO_ON)


def _sentence(words: str) -> str:
    return words if words.endswith((".", "?", "!")) else f"{words}."
