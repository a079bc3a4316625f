"""A step of the pipeline: how its artefact is found by content, or made."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from storage.workspace import Workspace

from stella_assets.core.manifest import Check, Identity, Manifest, environment, file_digest, reasons
from storage.artefacts import MANIFEST, ArtefactStore, write_atomically
from storage.memory import PeakMemory

Launch = Callable[[Sequence[str]], None]


class NotMaterialisedError(ValueError):
    """A step needs an artefact that this recipe has not made yet."""


@dataclass(frozen=True)
class Artefact:
    """A finished artefact: its folder and what it was made of."""

    name: str
    folder: Path
    manifest: Manifest
    reused: bool = True

    @property
    def digest(self) -> str:
        """The data version."""
        return self.manifest.digest


@dataclass(frozen=True)
class BuildContext:
    """What a step's build function works with.

    Attributes:
        recipe: The recipe's name.
        key: The artefact's key.
        folder: Empty; what the function writes here is the artefact.
        scratch: What an interrupted build of this very artefact left here is still here, to go on from.
        inputs: The artefacts that the step needs, by name.
        workspace: The folder of all state.
        log: For people.
        launch: Runs Python with these arguments in processes of their own and waits for them; None to work in this one.
    """

    recipe: str
    key: str
    folder: Path
    scratch: Path
    inputs: Mapping[str, Artefact]
    workspace: Workspace
    log: logging.Logger | logging.LoggerAdapter
    launch: Launch | None = None


@dataclass(frozen=True)
class Result:
    """What a build function gives back, beside the files in its folder."""

    metrics: Mapping[str, Any] = field(default_factory=dict)
    checks: tuple[Check, ...] = ()
    unhashed_files: tuple[str, ...] = ()


@dataclass(frozen=True)
class Step:
    """One artefact of a recipe.

    Attributes:
        recipe: The recipe's name.
        name: The asset's name, `stage_1` or `teacher_vectors/minilm`.
        code_version: Raised when the code makes another output from the same inputs.
        settings: The part of the recipe that decides the output.
        needs: The steps whose artefacts it reads.
        build: Writes the artefact's files.
        sources: Digests of what lies outside the pipeline (files, packages, model weights, the present release),
            worked out when asked.
        after: Steps that must have gone well before; what they make does not decide the output.
        present: Whether what the artefact keeps outside its folder is still there.
    """

    recipe: str
    name: str
    code_version: str
    settings: Mapping[str, Any]
    build: Callable[[BuildContext], Result]
    needs: tuple[Step, ...] = ()
    sources: Callable[[Workspace], Mapping[str, str]] | None = None
    after: tuple[Step, ...] = ()
    present: Callable[[Artefact, Workspace], bool] = lambda _artefact, _workspace: True


def those_of(*steps: Step | None) -> tuple[Step, ...]:
    """The steps that a recipe has, of some that it may do without."""
    return tuple(step for step in steps if step is not None)


def all_steps(last: Step, *, after: bool = True) -> list[Step]:
    """A step and all that it rests on, inputs first; without `after`, only what decides its output."""
    ordered: dict[str, Step] = {}

    def visit(step: Step) -> None:
        if step.name not in ordered:
            for need in (*step.needs, *(step.after if after else ())):
                visit(need)
            ordered[step.name] = step

    visit(last)
    return list(ordered.values())


class Runner:
    """Finds and makes the artefacts of a recipe. Found ones are remembered, so a runner serves one run or less."""

    def __init__(
        self,
        workspace: Workspace,
        log: logging.Logger | logging.LoggerAdapter,
        launch: Launch | None = None,
        *,
        links: bool = True,
    ) -> None:
        """Work in a workspace; without `links`, what is made does not become what its recipe has."""
        self.workspace = workspace
        self.store = ArtefactStore(workspace)
        self.log = log
        self._launch = launch
        self._links = links
        self._found: dict[tuple[str, str], Artefact] = {}
        self.made: list[Artefact] = []
        """What it has built, and not found, in that order."""

    def identity(self, step: Step) -> Identity:
        """The step's identity, from the artefacts that this very recipe names, never from the newest ones.

        Raises:
            NotMaterialisedError: An input was not made yet.
        """
        for need in step.needs:
            if self.find(need) is None:
                raise NotMaterialisedError(
                    f"{step.recipe}/{step.name}: needs {need.name}, which was not made for this recipe as it stands. "
                    f"Run `stella run {step.recipe}` for everything, or add `--select {need.name}`."
                )
        return self.known_identity(step)

    def known_identity(self, step: Step) -> Identity:
        """The step's identity as far as it is known: without the inputs that have to be made first."""
        inputs = {need.name: found.digest for need in step.needs if (found := self.find(need))}
        if step.sources:
            inputs |= {f"source:{name}": value for name, value in step.sources(self.workspace).items()}
        return Identity(step.name, step.code_version, step.settings, inputs)

    def find(self, step: Step) -> Artefact | None:
        """The step's artefact for the recipe as it stands, if it was made and is whole."""
        known = self._found.get((step.recipe, step.name))
        if known is not None:
            return known
        try:
            key = self.identity(step).key
        except NotMaterialisedError:
            return None
        if not self.store.exists(step.name, key):
            return None
        folder = self.store.path(step.name, key)
        artefact = Artefact(step.name, folder, Manifest.read(folder / MANIFEST))
        if not all((folder / file).is_file() for file in artefact.manifest.outputs):
            return None
        if not step.present(artefact, self.workspace):
            return None
        self._found[step.recipe, step.name] = artefact
        return artefact

    def before(self, step: Step) -> Manifest | None:
        """What the recipe had for this step when it was last made, whatever has changed since."""
        path = self.workspace.current(step.recipe, step.name) / MANIFEST
        try:
            return Manifest.read(path) if path.is_file() else None
        except ValueError:  # it is damaged; it is only compared with
            return None

    def make(self, step: Step) -> Artefact:
        """Use the step's artefact if it exists; else build it, and commit it in one rename.

        Raises:
            NotMaterialisedError: An input was not made yet.
            ValueError: The build refused its inputs.
        """
        identity = self.identity(step)

        def on_wait() -> None:
            self.log.info(f"{step.name}: another run is making this very artefact; waiting for it.")

        with self.store.lock(step.name, identity.key, on_wait):
            artefact = self.find(step)
            if artefact is None:
                artefact = self._build(step, identity)
                self.made.append(artefact)
            if self._links:
                self.store.point(step.recipe, step.name, identity.key)
        return artefact

    def prune_links(self, last: Step) -> None:
        """Remove the recipe's links to assets that its last step does not rest on: it has them no more."""
        self.store.prune_links(last.recipe, {"study", *(step.name for step in all_steps(last))})

    def _build(self, step: Step, identity: Identity) -> Artefact:
        draft, scratch = self.store.draft(step.name, identity.key), self.store.scratch(step.name, identity.key)
        inputs = {need.name: artefact for need in step.needs if (artefact := self.find(need))}
        started = time.monotonic()
        with PeakMemory() as memory:
            result = step.build(
                BuildContext(step.recipe, identity.key, draft, scratch, inputs, self.workspace, self.log, self._launch)
            )
        files = sorted(str(path.relative_to(draft)) for path in draft.rglob("*") if path.is_file())
        manifest = Manifest(
            identity=identity,
            outputs={name: file_digest(draft / name) for name in files if name not in result.unhashed_files},
            metrics=result.metrics,
            checks=result.checks,
            unhashed_files=result.unhashed_files,
            run_info={
                "recipe": step.recipe,
                "because": reasons(identity, self.before(step)),
                "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
                "seconds": round(time.monotonic() - started, 2),
                "peak_memory_mib": memory.peak_mib,
                **environment(),
            },
        )
        write_atomically(draft / MANIFEST, manifest.to_json())
        folder = self.store.commit(draft, step.name, identity.key)
        return Artefact(step.name, folder, manifest, reused=False)
