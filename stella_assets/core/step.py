"""A step of the pipeline: what decides its artefact, how it is built, and how others read it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from stella_assets.core.devices import Compute
from stella_assets.core.manifest import Check, Manifest
from stella_assets.core.present import Shown
from stella_assets.storage.artefacts import MANIFEST
from stella_assets.storage.canonical import digest
from stella_assets.storage.workspace import Workspace

if TYPE_CHECKING:
    from stella_assets.core.runner import Runner

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
Log = logging.Logger | logging.LoggerAdapter[Any]
Launch = Callable[[Sequence[str]], None]
"""Runs Python with these arguments in processes of their own, and waits for them."""

FIXED_SECONDS, FEW_TEXTS = 1.0, 1000
Group = Literal["corpus", "teachers", "training", "evaluation", "release"]
"""In the order that data flows."""


@dataclass(frozen=True)
class Artefact:
    """A finished artefact: its folder and what it was made of."""

    name: str
    folder: Path
    manifest: Manifest
    reused: bool = True

    @classmethod
    def open(cls, name: str, folder: Path) -> Artefact:
        """The artefact in a folder.

        Raises:
            ManifestError: Its manifest cannot be read or was changed.
        """
        return cls(name, folder, Manifest.read(folder / MANIFEST))

    @property
    def digest(self) -> str:
        """The data version."""
        return self.manifest.digest


@dataclass(frozen=True)
class Result:
    """What a build function returns, in addition to the files in its folder.

    Attributes:
        metrics: Figures and words to show; part of the manifest, not of the digest.
        checks: What was tested.
        unhashed_files: Files that may differ between two equal builds.
    """

    metrics: Mapping[str, Any] = field(default_factory=dict)
    checks: tuple[Check, ...] = ()
    unhashed_files: tuple[str, ...] = ()


@dataclass(frozen=True)
class CheckSpec:
    """A check that a step makes. A failing check that is `blocking` stops what comes after."""

    name: str
    description: str
    blocking: bool = False


@dataclass(frozen=True)
class Presentation:
    """How a step shows itself to people.

    Attributes:
        group: Its part of the pipeline.
        description: In Markdown, one or two sentences.
        kinds: Technologies, for the icons of the UI.
        checks: The checks that it makes.
        show: What it shows of its artefact: pictures, tables, figures.
    """

    group: Group
    description: str
    kinds: frozenset[str] = frozenset()
    checks: tuple[CheckSpec, ...] = ()
    show: Callable[[Artefact], Mapping[str, Shown]] = lambda _artefact: {}


@dataclass(frozen=True)
class Size:
    """How many texts the corpus of a recipe has, or is expected to have, by split.

    Attributes:
        texts: Of all splits.
        train: Of the split `train`, and so on.
        mean_bytes: Of a text; None where it is not known.
        pairs: Of training texts, scored ones included; None where it is not known.
    """

    texts: int
    train: int
    dev: int
    test: int
    mean_bytes: float | None = None
    pairs: int | None = None


@dataclass(frozen=True)
class Estimate:
    """What building an artefact would cost.

    Attributes:
        work: In words, e.g. `1,200 of 10,000 texts to embed`; empty where it has no such measure.
        seconds: By the speed of past runs or of a probe; None where none tells.
        memory_mib: Peak memory of the process.
        disk_mib: At most, while it is made.
        money: What others charge for it, in dollars; None where nobody knows the price.
        texts: To embed, to encode or to train on, repetitions included.
        steps: Of training.
        tokens: That others would be sent.
        charges: What they would charge, in words, and how that is known; empty where nobody charges anything.
    """

    work: str = ""
    seconds: float | None = None
    memory_mib: int | None = None
    disk_mib: float | None = None
    money: float | None = 0.0
    texts: int | None = None
    steps: int | None = None
    tokens: int | None = None
    charges: str = ""

    def measured(self, last: Manifest | None) -> Estimate:
        """With the memory of the last artefact of its like, and the space of vectors where it has some."""
        if last is None:
            return self
        dim, texts = last.metrics.get("dim"), self.texts or last.metrics.get("rows") or last.metrics.get("texts")
        disk = texts * dim * 2 / 2**20 if dim and texts else self.disk_mib  # 2 bytes per float16
        return replace(self, memory_mib=last.run_info.get("peak_memory_mib"), disk_mib=disk)


@dataclass(frozen=True)
class Deviation:
    """How far two artefacts of one step lie apart, where a tolerance is stated for their kind."""

    tolerated: bool
    measured: str


@dataclass(frozen=True)
class BuildContext:
    """What a build function works with.

    Attributes:
        asset: What the artefact is stored under.
        key: The artefact's key.
        folder: Empty; what the function writes here is the artefact.
        scratch: What an interrupted build of this very artefact left here is still here, to continue from.
        inputs: The artefacts that the step depends on.
        workspace: Where state is kept.
        log: For people.
        compute: Devices, number format and threads to compute with.
        launch: Starts processes of their own; None to work in this process.
        runner: Makes artefacts that are parts of this one.
    """

    asset: str
    key: str
    folder: Path
    scratch: Path
    inputs: Mapping[Step[Any], Artefact]
    workspace: Workspace
    log: Log
    compute: Compute
    launch: Launch | None = None
    runner: Runner | None = None

    def artefact(self, step: Step[Any]) -> Artefact:
        """The artefact of a dependency."""
        return self.inputs[step]

    def read(self, step: Step[T]) -> T:
        """The content of a dependency's artefact, as its step reads it."""
        return step.read(self.inputs[step], self.workspace)

    def make_part(self, step: Step[Any]) -> Artefact:
        """Make an artefact that is a part of this one: found by content or built, without a link of its own."""
        assert self.runner is not None, "parts are made by a runner"
        return self.runner.make_part(step)


def _as_artefact(artefact: Artefact, _workspace: Workspace) -> Any:
    return artefact


def from_folder(content: Callable[[Path], T]) -> Callable[[Artefact, Workspace], T]:
    """A step's `read` for content that is opened by the artefact's folder alone.

    Example:
        >>> Step(..., read=from_folder(CorpusTexts))
    """
    return lambda artefact, _workspace: content(artefact.folder)


@dataclass(frozen=True, eq=False)
class Step(Generic[T_co]):
    """One artefact of a recipe. Steps are compared by identity; a `Graph` builds each of them once.

    Attributes:
        recipe: Name of the recipe.
        name: Of the asset, e.g. `stage_1` or `teacher_vectors/minilm`: its link and its key in the UI.
        code_version: Raised when the code makes another output from the same inputs.
        settings: The settings that decide the output, as plain values.
        build: Writes the artefact's files.
        presentation: How it shows itself; None for a part of another artefact.
        read: Opens an artefact for the steps that depend on it.
        dependencies: Steps whose artefacts it reads.
        order_after: Steps that must have succeeded before; what they make does not decide the output.
        external_versions: Digests of inputs outside the pipeline: files, packages, model weights, the active release.
        is_available: Whether what the artefact keeps outside its folder still exists.
        family: Where artefacts of its kind are stored; steps of one family with equal inputs share an artefact.
        pool: Of a pool, only a limited number of steps run at once, over all runs.
        priority: A higher one runs first among steps that are ready.
        estimate: What a build would cost, from the last artefact of its like, the size of the corpus and what is stored
            already.
        tells: Whether an artefact of its family is so alike that its time tells that of this step.
        compare: How far two of its artefacts lie apart, in two workspaces; None where only equal bytes are accepted.
    """

    recipe: str
    name: str
    code_version: str
    settings: Mapping[str, Any]
    build: Callable[[BuildContext], Result]
    presentation: Presentation | None = None
    read: Callable[[Artefact, Workspace], T_co] = _as_artefact
    dependencies: tuple[Step[Any], ...] = ()
    order_after: tuple[Step[Any], ...] = ()
    external_versions: Callable[[Workspace], Mapping[str, str]] | None = None
    is_available: Callable[[Artefact, Workspace], bool] = lambda _artefact, _workspace: True
    family: str = ""
    pool: str | None = None
    priority: int = 0
    estimate: Callable[[Runner, Manifest | None, Size | None], Estimate] | None = None
    tells: Callable[[Manifest], bool] = lambda _manifest: True
    compare: Callable[[Artefact, Workspace, Artefact, Workspace], Deviation] | None = None

    @property
    def stored_as(self) -> str:
        """The family that its artefacts are stored under; its name, unless it shares artefacts with other steps."""
        return self.family or self.name

    @property
    def input_names(self) -> dict[Step[Any], str]:
        """What the manifest calls each dependency: its family, or its name where an earlier one has that family."""
        names: dict[Step[Any], str] = {}
        for each in self.dependencies:
            names[each] = each.name if each.stored_as in names.values() else each.stored_as
        return names

    @property
    def group(self) -> Group | None:
        """Its part of the pipeline; None for a part of another artefact."""
        return self.presentation.group if self.presentation else None

    def estimated(self, runner: Runner, last: Manifest | None, size: Size | None) -> Estimate:
        """What a build would cost.

        Args:
            runner: Finds what exists.
            last: The last artefact of its like; None where there is none.
            size: Of the corpus; None where it is not known.
        """
        if self.estimate is not None:
            return self.estimate(runner, last, size).measured(last)
        if last is None:
            return Estimate()
        seconds, before = float(last.run_info["seconds"]), last.metrics.get("texts") or last.metrics.get("rows")
        if before and size:
            # What every build takes, e.g. to load libraries, does not grow with the corpus; of few texts it is all.
            fixed = seconds if before < FEW_TEXTS else min(seconds, FIXED_SECONDS)
            seconds = fixed + (seconds - fixed) * size.texts / before
        return Estimate(seconds=seconds, texts=size.texts if before and size else None).measured(last)

    @property
    def version(self) -> str:
        """Of the code and the settings, so that a changed recipe shows as out of date."""
        return f"{self.code_version}-{digest(dict(self.settings))[:8]}"


def upstream(*steps: Step[Any], order: bool = True) -> list[Step[Any]]:
    """Steps and everything that they depend on, inputs first.

    Args:
        steps: Where to begin.
        order: Whether steps that only come before count too.
    """
    found: dict[Step[Any], None] = {}

    def visit(step: Step[Any]) -> None:
        if step not in found:
            for each in (*step.dependencies, *(step.order_after if order else ())):
                visit(each)
            found[step] = None

    for step in steps:
        visit(step)
    return list(found)
