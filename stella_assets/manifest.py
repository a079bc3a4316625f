"""What an artefact was made of, and whether one that exists can be used again."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

LIBRARIES = ("torch", "transformers", "sentence-transformers", "lancedb", "scikit-learn", "mteb", "dagster")


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no white space: the same value gives the same bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: Any) -> str:
    """SHA-256 of the canonical JSON, the first 32 hexadecimal digits."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:32]


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, the first 32 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]


@dataclass(frozen=True)
class Check:
    """A claim about an artefact that was tested when it was made."""

    name: str
    passed: bool
    description: str


@dataclass(frozen=True)
class Identity:
    """What decides an artefact's content: the step, its code version, its part of the recipe, its exact inputs."""

    asset: str
    code_version: str
    settings: Mapping[str, Any]
    inputs: Mapping[str, str]

    @property
    def key(self) -> str:
        """The folder's name: artefacts with equal keys are interchangeable."""
        return digest(asdict(self))[:16]


@dataclass(frozen=True)
class Manifest:
    """An identity and what came of it.

    `digest` covers the identity and the outputs. `about` holds what may differ between two equal runs (when, how long,
    how much memory, which machine), `facts` the figures to show, `views` files such as plots that show `about` too.
    """

    identity: Identity
    outputs: Mapping[str, str]
    facts: Mapping[str, Any] = field(default_factory=dict)
    checks: tuple[Check, ...] = ()
    views: tuple[str, ...] = ()
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """The artefact's data version."""
        return digest({"identity": asdict(self.identity), "outputs": dict(self.outputs)})

    def to_json(self) -> str:
        """The manifest as it lies beside the artefact."""
        body = {"digest": self.digest, "key": self.identity.key, **asdict(self)}
        return json.dumps(body, indent=1, ensure_ascii=False, sort_keys=True) + "\n"

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Read a manifest and make sure that it is whole.

        Raises:
            ValueError: The file was changed by hand.
        """
        body = json.loads(path.read_text(encoding="utf-8"))
        manifest = cls(
            identity=Identity(**body["identity"]),
            outputs=body["outputs"],
            facts=body["facts"],
            checks=tuple(Check(**check) for check in body["checks"]),
            views=tuple(body["views"]),
            about=body["about"],
        )
        if manifest.digest != body["digest"]:
            raise ValueError(f"{path}: its digest {body['digest']} does not match its content. Delete its folder.")
        return manifest


def environment() -> dict[str, str]:
    """Versions and machine, for the record; they are no part of a digest."""
    return {
        "python": platform.python_version(),
        "machine": f"{platform.machine()} {platform.system()}",
        **{name: version(name) for name in LIBRARIES},
    }
