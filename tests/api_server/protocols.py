"""The protocols, from the server's side: where the key is, what a request says, and how answers and errors look."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from tests.api_server.faults import Rows


@dataclass(frozen=True)
class Asked:
    """What a request asks for."""

    texts: list[str]
    dimensions: int | None
    role: str | None


class Speech(Protocol):
    """One protocol."""

    path: str
    most: int

    def key(self, headers: Mapping[str, str]) -> str: ...
    def asked(self, body: dict[str, Any]) -> Asked: ...
    def answer(self, body: dict[str, Any], rows: Rows, tokens: int) -> dict[str, Any]: ...
    def error(self, status: int, message: str, code: str) -> dict[str, Any]: ...


class OpenAi:
    path = "/openai/v1/embeddings"
    most = 2048

    def key(self, headers: Mapping[str, str]) -> str:
        return headers.get("authorization", "").removeprefix("Bearer ") or headers.get("api-key", "")

    def asked(self, body: dict[str, Any]) -> Asked:
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        return Asked(texts, body.get("dimensions"), None)

    def answer(self, body: dict[str, Any], rows: Rows, tokens: int) -> dict[str, Any]:
        packed = body.get("encoding_format") == "base64"
        data = [
            {
                "object": "embedding",
                "index": index,
                "embedding": base64.b64encode(vector.astype("<f4").tobytes()).decode() if packed else vector.tolist(),
            }
            for index, vector in rows
        ]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return {"object": "list", "data": data, "model": body["model"], "usage": usage}

    def error(self, status: int, message: str, code: str) -> dict[str, Any]:
        kind = "invalid_request_error" if status < 500 else "server_error"
        return {"error": {"message": message, "type": kind, "param": None, "code": code or None}}


PROTOCOLS: dict[str, Speech] = {"openai": OpenAi()}
