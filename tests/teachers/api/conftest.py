"""A teacher of kind `api` in front of the stand-in, and a small corpus for it."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stella_assets.core.devices import Compute
from stella_assets.core.services import Services
from stella_assets.corpus.read import CorpusTexts
from stella_assets.corpus.tables import TEXTS
from stella_assets.corpus.text import text_id
from stella_assets.storage.workspace import Workspace
from stella_assets.teachers.api.model import _observed
from stella_assets.teachers.kinds.api import ApiTeacher
from stella_assets.teachers.teacher_vectors import Reference, TeacherVectors, fingerprints
from stella_assets.teachers.worker import EncodeWorker
from tests.api_server import StandIn

KEY = "sk-marker-0123456789abcdef"
VARIABLE = "STAND_IN_KEY"
DIM = 32


@pytest.fixture(autouse=True)
def new_process() -> None:
    """Each test counts as a process of its own, which sends the canaries again."""
    _observed.clear()


@pytest.fixture
def stand_in() -> StandIn:
    return StandIn(key=KEY)


@pytest.fixture
def address(stand_in: StandIn) -> Iterator[str]:
    with stand_in.running() as address:
        yield address


def settings(address: str, **more: Any) -> dict[str, Any]:
    return {
        "kind": "api",
        "name": "far",
        "licence": "proprietary",
        "service": {"dialect": "openai", "model": "any", "base_url": f"{address}/openai/v1", "server": "stand-in"},
        "key": VARIABLE,
        "dim": DIM,
        "price": 0.5,
        "limits": {"items": 8, "concurrency": 2},
        "terms": {"distribution": "internal", "url": "https://example.com/terms", "read_on": "2026-11-27"},
        **more,
    }


@pytest.fixture
def teacher(address: str) -> Callable[..., ApiTeacher]:
    return lambda **more: ApiTeacher.model_validate(settings(address, **more))


def compute_in(workspace: Workspace, key: str | None = KEY) -> Compute:
    return Compute("cpu", threads=1, services=Services(workspace, {VARIABLE: key}.get, "test"))


class SmallCorpus:
    """A corpus of a few sentences, in the order of their ids."""

    def __init__(self, folder: Path, texts: list[str], role: Callable[[int], str] = lambda _n: "document") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        rows = sorted((text_id(text), text, role(number)) for number, text in enumerate(texts))
        TEXTS.write(
            folder,
            [
                dict.fromkeys(TEXTS.schema.names, "a") | {"id": key, "text": text, "role": of, "split": "train"}
                for key, text, of in rows
            ],
        )
        self.texts = CorpusTexts(folder)


def opened(teacher: ApiTeacher, folder: Path, workspace: Workspace, compute: Compute) -> TeacherVectors:
    """The teacher's vectors, as the step opens them."""
    worker = EncodeWorker(teacher, folder)
    reference = Reference(teacher.dimensions, 0, fingerprints(worker.model(compute)), "")
    return TeacherVectors(teacher, folder, reference, workspace, worker)


LOG = logging.getLogger("test")
