"""The protocols, from the server's side: where the key is, what a request says, and how answers and errors look."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

from tests.api_server.faults import Rows


@dataclass(frozen=True)
class Asked:
    """What a request asks for."""

    texts: list[str]
    dimensions: int | None
    role: str | None
    query: str | None = None
    """Of requests for scores."""


class Speech(Protocol):
    """One protocol."""

    path: str
    most: int

    def key(self, headers: Mapping[str, str]) -> str: ...
    def asked(self, body: dict[str, Any]) -> Asked: ...
    def answer(self, body: dict[str, Any], rows: Rows, tokens: int) -> dict[str, Any]: ...
    def error(self, status: int, message: str, code: str) -> dict[str, Any]: ...


def bearer(headers: Mapping[str, str]) -> str:
    return headers.get("authorization", "").removeprefix("Bearer ")


def listed(vector: np.ndarray) -> list[float]:
    # NaN has no JSON, and the servers that send it write the word all the same, as Python does.
    return [float(number) for number in vector]


def packed(vector: np.ndarray) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()


def by_index(body: dict[str, Any], rows: Rows, tokens: int, pack: bool) -> dict[str, Any]:
    """An answer in the form of OpenAI, which others took over."""
    write = packed if pack else listed
    data = [{"object": "embedding", "index": index, "embedding": write(vector)} for index, vector in rows]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": body["model"], "usage": usage}


class OpenAi:
    path = "/openai/v1/embeddings"
    most = 2048

    def key(self, headers: Mapping[str, str]) -> str:
        return headers.get("api-key") or bearer(headers)

    def asked(self, body: dict[str, Any]) -> Asked:
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        return Asked(texts, body.get("dimensions"), body.get("input_type"))

    def answer(self, body: dict[str, Any], rows: Rows, tokens: int) -> dict[str, Any]:
        return by_index(body, rows, tokens, body.get("encoding_format") == "base64")

    def error(self, status: int, message: str, code: str) -> dict[str, Any]:
        kind = "invalid_request_error" if status < 500 else "server_error"
        return {"error": {"message": message, "type": kind, "param": None, "code": code or None}}


class Cohere:
    path = "/cohere/v2/embed"
    most = 96

    def key(self, headers: Mapping[str, str]) -> str:
        return bearer(headers)

    def asked(self, body: dict[str, Any]) -> Asked:
        assert body["embedding_types"] == ["float"]
        return Asked(body["texts"], body.get("output_dimension"), body["input_type"])

    def answer(self, body: dict[str, Any], rows: Rows, tokens: int) -> dict[str, Any]:
        return {
            "id": f"cohere-{tokens}",
            "embeddings": {"float": [listed(vector) for _, vector in rows]},
            "texts": body["texts"],
            "meta": {"api_version": {"version": "2"}, "billed_units": {"input_tokens": tokens}},
        }

    def error(self, status: int, message: str, code: str) -> dict[str, Any]:
        return {"message": f"{message} {code}".strip()}


class Voyage:
    path = "/voyage/v1/embeddings"
    most = 1000

    def key(self, headers: Mapping[str, str]) -> str:
        return bearer(headers)

    def asked(self, body: dict[str, Any]) -> Asked:
        assert body["output_dtype"] == "float"
        return Asked(body["input"], body.get("output_dimension"), body["input_type"])

    def answer(self, body: dict[str, Any], rows: Rows, tokens: int) -> dict[str, Any]:
        return {**by_index(body, rows, tokens, body["encoding_format"] == "base64"), "usage": {"total_tokens": tokens}}

    def error(self, status: int, message: str, code: str) -> dict[str, Any]:
        return {"detail": f"{message} {code}".strip()}


class Gemini:
    path = "/gemini/v1beta/models/{model}:batchEmbedContents"
    most = 100

    def key(self, headers: Mapping[str, str]) -> str:
        return headers.get("x-goog-api-key", "")

    def asked(self, body: dict[str, Any]) -> Asked:
        texts = ["".join(part["text"] for part in each["content"]["parts"]) for each in body["requests"]]
        first = body["requests"][0]
        return Asked(texts, first.get("outputDimensionality"), first.get("taskType"))

    def answer(self, body: dict[str, Any], rows: Rows, tokens: int) -> dict[str, Any]:
        # Only whole vectors are of norm 1 there.
        short = "outputDimensionality" in body["requests"][0]
        return {"embeddings": [{"values": listed(vector * (0.5 if short else 1))} for _, vector in rows]}

    def error(self, status: int, message: str, code: str) -> dict[str, Any]:
        details = [{"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaId": code}]}]
        return {"error": {"code": status, "message": message, "status": "FAILED", "details": details if code else []}}


class Jina:
    path = "/jina/v1/embeddings"
    most = 2048

    def key(self, headers: Mapping[str, str]) -> str:
        return bearer(headers)

    def asked(self, body: dict[str, Any]) -> Asked:
        assert body["normalized"] is True
        return Asked(body["input"], body.get("dimensions"), body.get("task"))

    def answer(self, body: dict[str, Any], rows: Rows, tokens: int) -> dict[str, Any]:
        return by_index(body, rows, tokens, body["embedding_type"] == "base64")

    def error(self, status: int, message: str, code: str) -> dict[str, Any]:
        return {"detail": f"{message} {code}".strip()}


class Mistral:
    path = "/mistral/v1/embeddings"
    most = 256

    def key(self, headers: Mapping[str, str]) -> str:
        return bearer(headers)

    def asked(self, body: dict[str, Any]) -> Asked:
        assert body["output_dtype"] == "float"
        return Asked(body["input"], body.get("output_dimension"), None)

    def answer(self, body: dict[str, Any], rows: Rows, tokens: int) -> dict[str, Any]:
        return by_index(body, rows, tokens, body["encoding_format"] == "base64")

    def error(self, status: int, message: str, code: str) -> dict[str, Any]:
        return {"object": "error", "message": message, "type": "invalid_request_error", "param": None, "code": code}


PROTOCOLS: dict[str, Speech] = {
    "openai": OpenAi(),
    "cohere": Cohere(),
    "voyage": Voyage(),
    "gemini": Gemini(),
    "jina": Jina(),
    "mistral": Mistral(),
}
"""By the name of the dialect. The paths are those of the providers, after the part of the address that is ours."""


class Rerank:
    """Scores of the documents of one query, the best first, as reranking services answer."""

    most = 1000
    rows = "results"
    more: ClassVar[Mapping[str, Any]] = {}

    def key(self, headers: Mapping[str, str]) -> str:
        return bearer(headers)

    def asked(self, body: dict[str, Any]) -> Asked:
        assert {"model", "query", "documents"} | self.more.keys() == body.keys()
        assert all(body[name] == value for name, value in self.more.items() if value is not None)
        assert body.get("top_n", len(body["documents"])) == len(body["documents"])
        return Asked(body["documents"], None, None, body["query"])

    def answer(self, body: dict[str, Any], rows: Rows, tokens: int) -> dict[str, Any]:
        ranked = sorted(rows, key=lambda row: -row[1][0])
        found = [{"index": index, "relevance_score": float(score[0])} for index, score in ranked]
        return {"model": body["model"], self.rows: found, **self.usage(tokens)}

    def usage(self, tokens: int) -> dict[str, Any]:
        return {"usage": {"total_tokens": tokens}}

    def error(self, status: int, message: str, code: str) -> dict[str, Any]:
        return {"detail": f"{message} {code}".strip()}


class CohereRerank(Rerank):
    path = "/cohere/v2/rerank"
    more: ClassVar[Mapping[str, Any]] = {"max_tokens_per_doc": None}

    def usage(self, tokens: int) -> dict[str, Any]:
        return {"id": f"cohere-{tokens}", "meta": {"billed_units": {"search_units": 1}}}

    def error(self, status: int, message: str, code: str) -> dict[str, Any]:
        return {"message": f"{message} {code}".strip()}


class JinaRerank(Rerank):
    path = "/jina/v1/rerank"
    more: ClassVar[Mapping[str, Any]] = {"top_n": None, "return_documents": False}


class VoyageRerank(Rerank):
    path = "/voyage/v1/rerank"
    rows = "data"
    more: ClassVar[Mapping[str, Any]] = {"return_documents": False, "truncation": None}


class VllmRerank(Rerank):
    path = "/vllm/v1/rerank"
    more: ClassVar[Mapping[str, Any]] = {"top_n": None}

    def error(self, status: int, message: str, code: str) -> dict[str, Any]:
        return {"error": {"message": message, "type": "BadRequestError", "param": None, "code": status}}


class Chat:
    """OpenAI's chat: a judge that is asked for one word, or for a number."""

    path = "/openai/v1/chat/completions"
    most = 1

    def key(self, headers: Mapping[str, str]) -> str:
        return bearer(headers)

    def asked(self, body: dict[str, Any]) -> Asked:
        system, user = body["messages"]
        assert (system["role"], user["role"]) == ("system", "user")
        query, document = user["content"].removeprefix("Query: ").split("\n\nDocument: ")
        return Asked([document], None, None, query)

    def answer(self, body: dict[str, Any], rows: Rows, tokens: int) -> dict[str, Any]:
        chance = float(rows[0][1][0])
        words = "It depends." if np.isnan(chance) else str(round(10 * chance))
        choice: dict[str, Any] = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant"}}
        if body.get("logprobs") and not np.isnan(chance):
            assert (body["top_logprobs"], body["max_tokens"]) == (20, 1)
            words = "Yes" if chance >= 0.5 else "No"
            # Two tokens are the same word, and one is neither.
            chances = {"Yes": 0.9 * chance, " yes": 0.09 * chance, "No": 0.99 * (1 - chance), "Maybe": 0.001}
            top = [{"token": token, "logprob": float(np.log(p)), "bytes": None} for token, p in chances.items() if p]
            choice["logprobs"] = {"content": [{"token": words, "logprob": -0.1, "top_logprobs": top}]}
        elif body.get("logprobs"):
            top = [{"token": "It", "logprob": -0.1, "bytes": None}]
            choice["logprobs"] = {"content": [{"token": "It", "logprob": -0.1, "top_logprobs": top}]}
        choice["message"]["content"] = words
        usage = {"prompt_tokens": tokens, "completion_tokens": 1, "total_tokens": tokens + 1}
        return {"id": f"chat-{tokens}", "object": "chat.completion", "choices": [choice], "usage": usage}

    def error(self, status: int, message: str, code: str) -> dict[str, Any]:
        return OpenAi().error(status, message, code)


SCORES: dict[str, Speech] = {
    "cohere_rerank": CohereRerank(),
    "jina_rerank": JinaRerank(),
    "voyage_rerank": VoyageRerank(),
    "vllm_rerank": VllmRerank(),
    "chat": Chat(),
}
"""Protocols whose answers are scores of documents for a query."""
