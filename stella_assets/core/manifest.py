"""What an artefact was made of, and whether one that exists can be used again."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property, lru_cache
from importlib.metadata import version
from itertools import zip_longest
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_info

from stella_assets.core.errors import UserError
from stella_assets.storage.canonical import canonical_json, digest
from stella_assets.storage.files import file_digest

__all__ = ["file_digest"]

DISTRIBUTION = "stella-distil"
SHOWN = 60
"""Characters of a value in a reason."""
LIBRARIES = ("torch", "transformers", "sentence-transformers", "lancedb", "scikit-learn", "mteb", "dagster")


FORMER_KEYS = {"facts": "metrics", "about": "run_info", "views": "unhashed_files"}
"""Of manifests that older versions wrote, and what they are called now."""


REMEDY = "The next run makes the artefact again if a recipe needs it; `stella verify --repair` removes it."


class ManifestError(UserError):
    """A manifest that is damaged or was changed by hand."""


@dataclass(frozen=True)
class Check:
    """A claim about an artefact that was tested when it was made, with the figures that it depends on."""

    name: str
    passed: bool
    description: str
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Identity:
    """What decides an artefact's content: the step, its code version, its part of the recipe, its exact inputs.

    Attributes:
        asset: What the artefact is stored under.
        code_version: Of the step.
        settings: As plain JSON values.
        inputs: Digests by name: of other artefacts, and with `source:` in front, of what lies outside the pipeline.
    """

    asset: str
    code_version: str
    settings: Mapping[str, Any]
    inputs: Mapping[str, str]

    @cached_property
    def key(self) -> str:
        """The folder's name: artefacts with equal keys are interchangeable."""
        return digest(self.body())[:16]

    def body(self) -> dict[str, Any]:
        """Its fields by name."""
        # Not `asdict`, which copies the settings value by value.
        return {each.name: getattr(self, each.name) for each in fields(self)}


@dataclass(frozen=True)
class Manifest:
    """An identity and what came of it.

    `digest` covers the identity and the outputs. `run_info` holds what may differ between two equal runs: when, how
    long, how much memory, which machine. `metrics` are the figures to show. `unhashed_files` are files that show
    `run_info` too, such as plots; their digests are in `file_digests`, so that damage to them is found, too.

    Attributes:
        identity: What decided the content.
        outputs: Digests of the files, by path in the artefact's folder; without `unhashed_files`.
        metrics: Figures and words to show.
        checks: What was tested when it was made.
        unhashed_files: Paths in the artefact's folder.
        run_info: When, where and with what it was made; times in seconds, memory in MiB.
        file_digests: Digests of the `unhashed_files`; older versions wrote none.
    """

    identity: Identity
    outputs: Mapping[str, str]
    metrics: Mapping[str, Any] = field(default_factory=dict)
    checks: tuple[Check, ...] = ()
    unhashed_files: tuple[str, ...] = ()
    run_info: Mapping[str, Any] = field(default_factory=dict)
    file_digests: Mapping[str, str] = field(default_factory=dict)

    @property
    def files(self) -> Mapping[str, str]:
        """Digests of all files by path, of those that the digest of the artefact does not cover, too."""
        return {**self.outputs, **self.file_digests}

    @property
    def digest(self) -> str:
        """The artefact's data version."""
        return digest({"identity": self.identity.body(), "outputs": dict(self.outputs)})

    def to_json(self) -> str:
        """The manifest as it is stored in the artefact's folder."""
        # Derived values are stored too: `read` compares the digest, and SQL views need no Python.
        body = {"digest": self.digest, "key": self.identity.key, "seal": self._seal(), **asdict(self)}
        return json.dumps(body, indent=1, ensure_ascii=False, sort_keys=True) + "\n"

    def _seal(self) -> str:
        """A digest of the whole manifest: later steps read metrics and checks, which `digest` does not cover."""
        # Through JSON, which turns e.g. tuples into lists, so that a manifest that was read gives the same.
        plain = json.loads(json.dumps(asdict(self)))
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:32]

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Read a manifest and make sure that it is whole. Manifests of older versions have other names for some keys.

        Raises:
            ManifestError: The file is damaged or was changed by hand.
        """
        try:
            body = json.loads(path.read_text(encoding="utf-8"))
            # The digest does not cover these three, so manifests with the former names keep theirs.
            body |= {new: body[old] for old, new in FORMER_KEYS.items() if old in body}
            manifest = cls(
                identity=Identity(**body["identity"]),
                outputs=body["outputs"],
                metrics=body["metrics"],
                checks=tuple(Check(**check) for check in body["checks"]),
                unhashed_files=tuple(body["unhashed_files"]),
                run_info=body["run_info"],
                file_digests=body.get("file_digests", {}),
            )
            seal = manifest._seal()
            # Manifests of older versions have no seal.
            stated = (body["digest"], body["key"], body.get("seal", seal))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ManifestError(
                f"{path}: cannot be read as a manifest ({type(error).__name__}: {error}).", REMEDY
            ) from None
        if stated != (manifest.digest, manifest.identity.key, seal):
            raise ManifestError(f"{path}: its digests {', '.join(stated)} do not match its content.", REMEDY)
        return manifest


def changed_values(before: Any, now: Any, path: str = "") -> dict[str, tuple[Any, Any]]:
    """Where two plain values differ; what is not there counts as None.

    Args:
        before: Mappings, lists and scalars, nested.
        now: The same.
        path: Put in front of the paths.

    Returns:
        Both values by dotted path.

    Example:
        >>> changed_values({"a": {"b": 1}}, {"a": {"b": 2}})
        {'a.b': (1, 2)}
    """
    if before == now:
        return {}
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        keys = dict.fromkeys([*before, *now])
        parts = [(str(key), before.get(key), now.get(key)) for key in keys]
    elif isinstance(before, list) and isinstance(now, list):
        parts = [(str(i), *pair) for i, pair in enumerate(zip_longest(before, now))]
    else:
        return {path: (before, now)}
    found = {}
    for name, old, new in parts:
        found.update(changed_values(old, new, f"{path}.{name}".lstrip(".")))
    return found


def plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as a manifest gives them back: tuples are lists."""
    copy: dict[str, Any] = json.loads(canonical_json(dict(settings)))
    return copy


def reasons(identity: Identity, before: Manifest | None, follows: Collection[str] = ()) -> list[str]:
    """Why an artefact has to be made, in words, from what the recipe had before.

    Args:
        identity: What is to be made; of the inputs in `follows`, the digests are not known yet.
        before: What the recipe had.
        follows: Inputs that have to be made first.

    Returns:
        One reason or more, each a few words.
    """
    if before is None:
        return ["not made for this recipe before"]
    old = before.identity
    found = []
    if old.code_version != identity.code_version:
        found.append(f"code version {old.code_version} -> {identity.code_version}")
    for path, (then, now) in changed_values(old.settings, plain(identity.settings)).items():
        found.append(f"{path} {_shown(then)} -> {_shown(now)}")
    for name in dict.fromkeys([*old.inputs, *identity.inputs, *follows]):
        if name in follows:
            found.append(f"{name} is made again" if name in old.inputs else f"{name} is new")
        elif old.inputs.get(name) != identity.inputs.get(name):
            verb = "is new" if name not in old.inputs else "is gone" if name not in identity.inputs else "changed"
            found.append(f"{name.replace(':', ' ')} {verb}")
    # Equal identities have equal keys, so only missing or damaged files are left as a reason.
    return found or ["its files were damaged or removed"]


def _shown(value: Any) -> str:
    text = "none" if value is None else canonical_json(value)
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."


def environment() -> Mapping[str, str]:
    """Code, versions and machine, for the record; they are no part of a digest.

    `threads` is of the libraries that are loaded: how many share a sum decides its last bits.
    """
    return {
        "commit": _commit(),
        "python": platform.python_version(),
        "machine": f"{platform.machine()} {platform.system()}",
        "cpu": _cpu(),
        "threads": str(max((pool["num_threads"] for pool in threadpool_info()), default=1)),
        **{name: version(name) for name in LIBRARIES},
    }


@lru_cache
def _commit() -> str:
    """The commit of this code, with `-dirty` where files were changed since; the version outside a checkout."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return version(DISTRIBUTION)
    # `--exclude=*` ignores tags, so the answer is always a commit.
    command = ["git", "describe", "--always", "--dirty", "--exclude=*", "--abbrev=40"]
    try:
        found = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    except OSError:  # there is no git
        return version(DISTRIBUTION)
    return found.stdout.strip() if found.returncode == 0 else version(DISTRIBUTION)


@lru_cache
def _cpu() -> str:
    """The processor's name, and the widest of the instructions that matrix products use."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return platform.processor()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    named = {key.strip(): value.strip() for key, value in fields.items()}
    flags = named.get("flags", "").split()
    # Kernels for other widths add in another order, so vectors differ in their last bits between such CPUs.
    widest = next((flag for flag in ("amx_tile", "avx512_bf16", "avx512f", "avx2") if flag in flags), "")
    return f"{named.get('model name', platform.processor())} {widest}".strip()
