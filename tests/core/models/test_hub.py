"""What `validate` says of models of the hub before anything is downloaded; the hub is a server of this test."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from stella_assets.core.config import ModelSource
from stella_assets.core.models import HubError, hub_states
from tests.models import build
from tests.models.hub import write_commit

COMMIT = "a" * 40
FILES = {
    "config.json": 700, "model.safetensors": 2_000_000_000, "pytorch_model.bin": 2_000_000_000, "tokenizer.json": 300,
    "onnx/model.onnx": 9_000_000_000, "2_Dense/pytorch_model.bin": 500_000_000,
}  # fmt: skip


class Hub(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        found = self.path.startswith(f"/api/models/org/model/revision/{COMMIT}")
        content: dict[str, Any] = {"error": "Repository not found"}
        if found:
            siblings = [{"rfilename": name, "size": size} for name, size in FILES.items()]
            content = {"id": "org/model", "sha": COMMIT, "siblings": siblings}
        self.send_response(200 if found else 404)
        if not found:
            self.send_header("X-Error-Code", "RepoNotFound")
        body = json.dumps(content).encode()
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    return tmp_path / "cache"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with HTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        yield
        server.shutdown()


def state(**settings: Any) -> str:
    source = ModelSource.model_validate({"model": "org/model", "revision": COMMIT, **settings})
    (found,) = hub_states({"student": source, "teacher 'own'": ModelSource(model="./folder")}, timeout=2)
    return found


@pytest.mark.usefixtures("hub")
def test_sizes_are_those_of_the_files_that_a_run_reads(cache: Path):
    # Without the second format of the same weights, and without ONNX.
    assert state() == (
        "student: org/model at commit aaaaaaaaaaaa; its own code is not run; it is not in the cache; a run would "
        "download 2.50 of its 2.50 GB."
    )
    write_commit(cache, "org/model", COMMIT, {"2_Dense/pytorch_model.bin": "", "config.json": "{}"})
    assert "its own code is trusted; a part of it is in the cache; a run would download 2.00 of its 2.50 GB" in state(
        trust_remote_code=True
    )


@pytest.mark.usefixtures("hub")
def test_a_model_that_the_hub_does_not_have_is_an_error():
    with pytest.raises(HubError, match=r"student: the hub has no org/other at revision b+ .*Correct `model`"):
        state(model="org/other", revision="b" * 40)


def test_a_model_of_the_cache_needs_no_hub(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    folder = build("bert", tmp_path)
    files = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    write_commit(cache, "org/model", COMMIT, files)
    assert state().endswith("it is in the cache.")
    assert "at 'main', a name that can be moved; its own code is not run; it is in the cache" in state(revision="main")
    (cache / "models--org--model" / "snapshots" / COMMIT / "model.safetensors").unlink()
    assert "it is not in the cache; a run would download it (the hub does not answer" in state()


def test_a_hub_that_does_not_answer_is_no_error_and_soon_given_up(monkeypatch: pytest.MonkeyPatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        started = time.monotonic()
        assert "it is not in the cache; a run would download it (the hub " in state()
        assert time.monotonic() - started < 6
    assert "it is not in the cache; a run would download it (the hub does not answer: Conn" in state()
