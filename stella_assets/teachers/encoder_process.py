"""A process in another Python environment that encodes texts; `encoder_script.py` is what runs there.

Shapes: N texts, D dimensions of a vector.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from stella_assets.core.environments import Environment
from stella_assets.core.environments.sandbox import clean_variables, closed_command
from stella_assets.core.errors import UserError

SCRIPT = Path(__file__).with_name("encoder_script.py")
SHOWN_LINES = 8
"""Of what the process printed before it ended."""


class EncoderError(UserError):
    """The model of a process in another environment failed.

    Attributes:
        cause: Type and message of the error there; empty where the process ended without a word.
    """

    cause = ""


class EncoderProcess:
    """A loaded model in another process. It ends with this object, and with this process, however that ends.

    It sees the environment variables that are passed, its own scratch folder as home, and no network where the system
    can keep it away.

    Args:
        environment: Where it runs; it exists.
        settings: Of `encoder_script.py`; `code` names the folders of other repositories, which are copied for it.
        variables: Environment variables that it may see.
        owner: Whose model it is, for messages, e.g. `teacher 'old'`.

    Raises:
        EncoderError: The model does not load.
    """

    def __init__(
        self, environment: Environment, settings: Mapping[str, Any], variables: Mapping[str, str], owner: str
    ) -> None:
        from huggingface_hub.constants import HF_HUB_CACHE

        self._owner, self._environment = owner, environment
        self.home = Path(tempfile.mkdtemp(prefix="stella-encoder-"))
        told = self.home / "settings.json"
        given = {**settings, "code": self._copy_code(settings["code"]), "home": str(self.home)}
        told.write_text(json.dumps(given), encoding="utf-8")
        self._log = self.home / "log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                # Isolated: neither PYTHONPATH nor packages in a home folder come before those of the environment.
                closed_command([str(environment.program), "-I", str(SCRIPT), str(told)]),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                encoding="utf-8",
                env=clean_variables(variables, self.home, settings["threads"], HF_HUB_CACHE),
                cwd=self.home,
            )
        self.pid = self._process.pid
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests: IO[str] = self._process.stdin
        self._answers: IO[str] = self._process.stdout
        self.close = weakref.finalize(self, _end, self._process, self.home)
        self.description: Mapping[str, Any] = self._receive()
        """Of the model: `dim`, `pooling`, `parameters` and `default_prompt`."""

    def _copy_code(self, repositories: Mapping[str, str]) -> dict[str, str]:
        """Copies of the Python files of other repositories: what the process runs is what it was given."""
        copies = {}
        for number, (repository, folder) in enumerate(repositories.items()):
            copy = self.home / "code" / f"repository_{number}"  # a name of a Python package
            for path in Path(folder).rglob("*.py"):
                target = copy / path.relative_to(folder)
                target.parent.mkdir(parents=True, exist_ok=True)
                # The files of the hub's cache are links into it.
                shutil.copyfile(path, target)
            copies[repository] = str(copy)
        return copies

    def encode(self, texts: Sequence[str], prompt: str) -> np.ndarray:
        """Unit-norm vectors `[N, D]` float32, in the order of `texts`.

        Args:
            texts: Of any length; the model cuts off what is past its limit.
            prompt: Put before each of them.

        Raises:
            EncoderError: The model failed, or the process ended.
        """
        given, made = self.home / "texts.json", self.home / "vectors.npy"
        given.write_text(json.dumps(list(texts)), encoding="utf-8")
        try:
            self._requests.write(json.dumps({"texts": str(given), "vectors": str(made), "prompt": prompt}) + "\n")
            self._requests.flush()
        except BrokenPipeError:
            pass  # it has ended; the missing answer says so
        self._receive()
        # What a model's code writes is not trusted: no pickles, and exactly the rows that were asked for.
        vectors_ND: np.ndarray = np.load(made, allow_pickle=False)
        made.unlink()
        if vectors_ND.shape != (len(texts), self.description["dim"]) or vectors_ND.dtype != np.float32:
            raise self._failed(f"it made {vectors_ND.dtype} of shape {vectors_ND.shape} of {len(texts)} texts")
        return vectors_ND

    def _receive(self) -> dict[str, Any]:
        line = self._answers.readline()
        if not line.endswith("\n"):
            code = self._process.wait()
            said = self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-SHOWN_LINES:]
            raise self._failed("\n".join([f"its process ended with code {code}", *said]))
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            error = self._failed(answer["error"])
            error.cause = answer["error"]
            error.add_note(answer["traceback"])
            raise error
        return answer

    def _failed(self, what: str) -> EncoderError:
        self.close()
        return EncoderError(
            f"{self._owner}: its model failed in its environment ({self._environment.folder}): {what}.",
            "Correct `environment`, or what else the message names.",
        )


def _end(process: subprocess.Popen[str], home: Path) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    shutil.rmtree(home, ignore_errors=True)
