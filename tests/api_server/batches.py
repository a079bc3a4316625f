"""The batch API of the stand-in: files and batches, as OpenAI and Voyage have them."""

import json
import random
import time
from email.parser import BytesParser
from email.policy import HTTP
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.api_server.encoders import shortened
from tests.api_server.faults import SPOILS
from tests.api_server.protocols import Speech

if TYPE_CHECKING:
    from tests.api_server.server import StandIn


class BatchDesk:
    """The batches of one protocol. A batch is answered when it is looked at after `stand_in.batch_seconds`.

    Args:
        stand_in: Has the model, the key, the marker, and `batch_end`, the status that batches end with. On request it
            lists `other_batches` that are newer, adds `odd_lines` to answers, and says `batch_words` in place of all.
        speech: The protocol.
    """

    def __init__(self, stand_in: "StandIn", speech: Speech) -> None:
        self.stand_in, self.speech = stand_in, speech
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.begun_at: dict[str, float] = {}

    def routes(self) -> list[Route]:
        prefix = self.speech.path.removesuffix("/embeddings")
        return [
            Route(f"{prefix}/files", self._guarded(self.upload), methods=["POST"]),
            Route(f"{prefix}/files/{{name}}/content", self._guarded(self.content)),
            Route(f"{prefix}/batches", self._guarded(self.begin), methods=["POST"]),
            Route(f"{prefix}/batches", self._guarded(self.listed), methods=["GET"]),
            Route(f"{prefix}/batches/{{name}}", self._guarded(self.look)),
        ]

    def _guarded(self, answer: Any) -> Any:
        async def endpoint(request: Request) -> Response:
            if self.stand_in.batch_words is not None:
                return Response(self.stand_in.batch_words)
            if self.stand_in.key is not None and self.speech.key(request.headers) != self.stand_in.key:
                return JSONResponse(self.speech.error(401, "Incorrect API key", "invalid_api_key"), 401)
            return await answer(request)

        return endpoint

    async def upload(self, request: Request) -> Response:
        head = f"Content-Type: {request.headers['content-type']}\r\n\r\n".encode()
        form = BytesParser(policy=HTTP).parsebytes(head + await request.body())
        parts = {part.get_param("name", header="content-disposition"): part for part in form.iter_parts()}
        assert parts["purpose"].get_content().strip() == "batch"
        name = f"file-{len(self.files)}"
        self.files[name] = parts["file"].get_payload(decode=True)
        return JSONResponse({"id": name, "object": "file", "purpose": "batch"})

    async def content(self, request: Request) -> Response:
        return Response(self.files[request.path_params["name"]], media_type="application/jsonl")

    async def begin(self, request: Request) -> Response:
        order = await request.json()
        assert order["endpoint"] == "/v1/embeddings"
        name = f"batch_{len(self.batches)}"
        self.batches[name] = {"id": name, "object": "batch", "status": "in_progress", **order}
        self.begun_at[name] = time.monotonic()
        self.stand_in.counts.batches += 1
        if self.stand_in.lose_batch_answers:
            self.stand_in.lose_batch_answers -= 1
            return Response("Bad Gateway", 502)
        return JSONResponse(self.batches[name])

    async def listed(self, request: Request) -> Response:
        others = [
            {"id": f"other_{number}", "input_file_id": f"other-file-{number}", "status": "completed"}
            for number in range(self.stand_in.other_batches)
        ]
        every = [*others, *list(self.batches.values())[::-1]]
        names = [batch["id"] for batch in every]
        start = names.index(request.query_params["after"]) + 1 if "after" in request.query_params else 0
        end = start + int(request.query_params["limit"])
        return JSONResponse({"object": "list", "data": every[start:end], "has_more": end < len(every)})

    async def look(self, request: Request) -> Response:
        name = request.path_params["name"]
        batch = self.batches[name]
        waited = time.monotonic() - self.begun_at[name]
        if batch["status"] == "in_progress" and waited >= self.stand_in.batch_seconds:
            batch["status"] = self.stand_in.batch_end
            if batch["status"] == "completed":
                self._answer(batch)
            else:
                batch["errors"] = {"data": [{"code": "invalid", "message": "the file cannot be read", "line": 1}]}
        return JSONResponse(batch)

    def _answer(self, batch: dict[str, Any]) -> None:
        lines = [json.loads(line) for line in self.files[batch["input_file_id"]].splitlines()]
        random.Random(0).shuffle(lines)
        good, bad = [], []
        for line in lines:
            # Voyage has the settings of all requests in the order.
            body = {"encoding_format": None, **batch.get("request_params", {}), **line["body"]}
            asked = self.speech.asked(body)
            answered = {"id": f"batch_req_{line['custom_id']}", "custom_id": line["custom_id"], "error": None}
            if self.stand_in.marker and any(self.stand_in.marker in text for text in asked.texts):
                error = self.speech.error(400, "the input was flagged by a filter", "")
                bad.append({**answered, "response": {"status_code": 400, "body": error}})
                continue
            tokens = self.stand_in.count(asked.texts)
            vectors = shortened(self.stand_in.encode(asked.texts), asked.dimensions)
            spoil = self.stand_in.batch_spoils.pop() if self.stand_in.batch_spoils else ""
            reply = self.speech.answer(body, SPOILS[spoil](list(enumerate(vectors))), tokens)
            response = {"status_code": 200, "request_id": f"req-{line['custom_id']}", "body": reply}
            good.append({**answered, "response": response})
        for part, found in (("output_file_id", good), ("error_file_id", bad)):
            if found:
                batch[part] = f"file-{len(self.files)}"
                lines = [*map(json.dumps, found), *self.stand_in.odd_lines]
                self.files[batch[part]] = "\n".join(lines).encode()
