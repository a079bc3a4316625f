"""The runner: finds artefacts by content, or builds them and commits them in one rename."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Self, TypeVar

from stella_assets.core.devices import Compute
from stella_assets.core.errors import MissingResultError, UserError
from stella_assets.core.intact import DamagedArtefactError, note_files, open_intact
from stella_assets.core.leases import take_lease
from stella_assets.core.manifest import Identity, Manifest, ManifestError, environment, reasons
from stella_assets.core.progress import progress_in
from stella_assets.core.step import Artefact, BuildContext, Launch, Log, Result, Step
from stella_assets.storage.artefacts import MANIFEST, ArtefactStore
from stella_assets.storage.errors import DamageError
from stella_assets.storage.files import file_digest, resolved, write_atomically
from stella_assets.storage.memory import PeakMemory, return_freed_memory
from stella_assets.storage.workspace import Workspace

T = TypeVar("T")


class NotMaterialisedError(MissingResultError):
    """A step needs an artefact that this recipe has not made yet."""


class InputsChangedError(UserError):
    """What a run reads outside the pipeline changed while it was under way."""


class Runner:
    """Finds and makes artefacts. It remembers what it found, so it serves one run or less.

    Args:
        workspace: Where state is kept.
        log: For people.
        compute: Devices, number format and threads to compute with.
        launch: Starts processes of their own for steps that can work in several; None to work in this process.
    """

    def __init__(
        self, workspace: Workspace, log: Log, compute: Compute | None = None, launch: Launch | None = None
    ) -> None:
        self.workspace = workspace
        self.store = ArtefactStore(workspace)
        self.log = log
        self.compute = compute or Compute()
        self._launch = launch
        self._external: dict[Step[Any], Mapping[str, str]] = {}
        self._identities: dict[Step[Any], Identity] = {}
        self._artefacts: dict[tuple[str, str], Artefact | None] = {}
        self.made: list[tuple[Step[Any], Artefact]] = []
        """What it has built, not found, in that order."""

    def within(self, log: Log, launch: Launch | None = None) -> Self:
        """A runner with another log and launcher, for one step of a run. Both remember what either of them found."""
        same = copy.copy(self)
        same.log, same._launch = log, launch
        return same

    def external_versions(self, step: Step[Any]) -> Mapping[str, str]:
        """Versions of the step's inputs outside the pipeline, asked for once."""
        if step not in self._external:
            self._external[step] = dict(step.external_versions(self.workspace)) if step.external_versions else {}
        return self._external[step]

    def identity(self, step: Step[Any]) -> Identity:
        """The step's identity, from the very artefacts that its dependencies name, never from the newest ones.

        Raises:
            NotMaterialisedError: An input was not made yet.
        """
        if step not in self._identities:
            for each in step.dependencies:
                if self.find(each) is None:
                    raise NotMaterialisedError(
                        f"{step.recipe}/{step.name}: needs {each.name}, which was not made for this recipe as it is.",
                        f"Run `stella run {step.recipe}` for everything, or add `--select {each.name}`.",
                    )
            self._identities[step] = self.known_identity(step)
        return self._identities[step]

    def known_identity(self, step: Step[Any]) -> Identity:
        """The step's identity as far as it is known: without the inputs that have to be made first."""
        inputs = {name: found.digest for each, name in step.input_names.items() if (found := self.find(each))}
        inputs |= {f"source:{name}": value for name, value in self.external_versions(step).items()}
        return Identity(step.stored_as, step.code_version, step.settings, inputs)

    def find(self, step: Step[Any]) -> Artefact | None:
        """The step's artefact for the recipe as it is, if it was made and is whole. Misses are remembered, too."""
        try:
            key = self.identity(step).key
        except NotMaterialisedError:
            return None
        known = (step.stored_as, key)
        if known not in self._artefacts:
            self._artefacts[known] = self._open(step, key)
        return self._artefacts[known]

    def read(self, step: Step[T]) -> T:
        """The content of a step's artefact.

        Raises:
            NotMaterialisedError: It was not made for the recipe as it is.
        """
        return step.read(self.require(step), self.workspace)

    def require(self, step: Step[Any]) -> Artefact:
        """The step's artefact.

        Raises:
            NotMaterialisedError: It was not made for the recipe as it is.
        """
        artefact = self.find(step)
        if artefact is None:
            raise NotMaterialisedError(
                f"{step.recipe}/{step.name}: was not made for this recipe as it is.",
                f"Run `stella run {step.recipe} --select {step.name}`.",
            )
        return artefact

    def _open(self, step: Step[Any], key: str) -> Artefact | None:
        if not self.store.exists(step.stored_as, key):
            return None
        try:
            artefact = open_intact(self.workspace, self.store.path(step.stored_as, key))
            return artefact if step.is_available(artefact, self.workspace) else None
        except (DamagedArtefactError, DamageError) as damaged:
            self.log.warning(f"{step.recipe}/{step.name}: damaged, so it is not used: {damaged.args[0]}")
            return None

    def before(self, step: Step[Any]) -> Manifest | None:
        """What the recipe had for this step when it was last made, whatever has changed since."""
        path = self.workspace.current(step.recipe, step.name) / MANIFEST
        try:
            return Manifest.read(path) if path.is_file() else None
        except ManifestError:  # it is damaged; it is only compared with
            return None

    def make(self, step: Step[Any], *, link: bool = True) -> Artefact:
        """Use the step's artefact if it exists; else build it, and commit it in one rename.

        Args:
            step: Its inputs exist.
            link: Whether the artefact becomes what its recipe has.

        Raises:
            NotMaterialisedError: An input was not made yet.
            StellaError: The build refused its inputs.
        """
        identity = self.identity(step)
        known = (step.stored_as, identity.key)

        def on_wait() -> None:
            self.log.info(f"{step.name}: another run is making this artefact; waiting for it.")

        with self.store.lock(step.stored_as, identity.key, on_wait):
            artefact = self._artefacts.get(known) or self._open(step, identity.key)
            if artefact is None:
                artefact = self._build(step, identity)
                self.made.append((step, artefact))
            self._artefacts[known] = replace(artefact, reused=True)  # from now on
            if link:
                self.link(step)
            self.store.remove_scratch(step.stored_as, identity.key)
        return artefact

    def make_part(self, step: Step[Any]) -> Artefact:
        """Make an artefact that is a part of another one, without a link of its own.

        Args:
            step: Its dependencies exist. It is not kept, because its build may hold much, e.g. a model that is scored.

        Raises:
            StellaError: The build refused its inputs.
        """
        artefact = self.make(step, link=False)
        del self._identities[step]
        self._external.pop(step, None)
        self.made[:] = [(replace(each, build=_built) if each is step else each, made) for each, made in self.made]
        return artefact

    def link(self, step: Step[Any]) -> None:
        """Make a step's artefact, which exists, what its recipe has, and remove what its build left."""
        key = self.identity(step).key
        self.store.point(step.recipe, step.name, step.stored_as, key)
        # Last: checkpoints are needed until the artefact is durable, and the lease until the recipe has it.
        self.store.remove_scratch(step.stored_as, key)

    def is_linked(self, step: Step[Any]) -> bool:
        """Whether a step's artefact, which exists, is what its recipe has, and nothing of its build is left."""
        # Both sides are resolved: the workspace may itself be reached through a link.
        linked = resolved(self.workspace.current(step.recipe, step.name))
        left = self.store.has_scratch(step.stored_as, self.identity(step).key)
        return linked == resolved(self.require(step).folder) and not left

    def prune_links(self, recipe: str, steps: Iterable[Step[Any]], keep: Iterable[str] = ()) -> None:
        """Remove the recipe's links to assets that it no longer has.

        Args:
            recipe: Name of the recipe.
            steps: All that it has.
            keep: Names of other links that stay.
        """
        self.store.prune_links(recipe, {*keep, *(step.name for step in steps)})

    def _require_unchanged(self, step: Step[Any]) -> None:
        """Refuse to build where what had to succeed before was tried with other files than those that are there now.

        Raises:
            InputsChangedError: They changed while the run was under way.
        """
        for each in step.order_after:
            if each.external_versions is None or each not in self._external:
                continue
            asked, now = self._external[each], each.external_versions(self.workspace)
            if changed := sorted(name for name in asked.keys() | now.keys() if asked.get(name) != now.get(name)):
                raise InputsChangedError(
                    f"{step.recipe}/{step.name}: {', '.join(changed)} changed during this run, after {each.name} was "
                    "made.",
                    "Run the same command again: what depends on it is made again, and nothing else.",
                )

    def _build(self, step: Step[Any], identity: Identity) -> Artefact:
        self._require_unchanged(step)
        draft, scratch = (
            self.store.draft(step.stored_as, identity.key),
            self.store.scratch(step.stored_as, identity.key),
        )
        inputs = {each: artefact for each in step.dependencies if (artefact := self.find(each))}
        take_lease(scratch, step.recipe, step.name, {each.name: artefact.folder for each, artefact in inputs.items()})
        started = time.monotonic()
        with PeakMemory() as memory, progress_in(self.log):
            result = step.build(
                BuildContext(
                    identity.asset,
                    identity.key,
                    draft,
                    scratch,
                    inputs,
                    self.workspace,
                    self.log,
                    self.compute,
                    self._launch,
                    self,
                )
            )
        _require_declared_checks(step, result)
        files = sorted(str(path.relative_to(draft)) for path in draft.rglob("*") if path.is_file())
        digests = {name: file_digest(draft / name) for name in files}
        manifest = Manifest(
            identity=identity,
            outputs={name: value for name, value in digests.items() if name not in result.unhashed_files},
            file_digests={name: value for name, value in digests.items() if name in result.unhashed_files},
            metrics=result.metrics,
            checks=result.checks,
            unhashed_files=result.unhashed_files,
            run_info={
                "recipe": step.recipe,
                "because": reasons(identity, self.before(step)),
                "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
                "seconds": round(time.monotonic() - started, 2),
                "peak_memory_mib": memory.peak_mib,
                "device": self.compute.describe(),
                **environment(),
            },
        )
        write_atomically(draft / MANIFEST, manifest.to_json())
        folder = self.store.commit(draft, step.stored_as, identity.key)
        note_files(self.workspace, folder, manifest)
        return_freed_memory()
        return Artefact(step.stored_as, folder, manifest, reused=False)


def _require_declared_checks(step: Step[Any], result: Result) -> None:
    """A step makes the checks that it declares, all of them and no others; anything else is a bug of the step."""
    if step.presentation is None:  # a part of another artefact, which nobody sees by itself
        return
    declared = sorted(check.name for check in step.presentation.checks)
    made = sorted(check.name for check in result.checks)
    # Here and not in Dagster, which would name the numbers of outputs, and only after the artefact was committed.
    if made != declared:
        raise RuntimeError(f"{step.name} declares the checks {declared} and made {made}")


def _built(context: BuildContext) -> Result:
    raise AssertionError(f"{context.asset} is a part that was built, and its build was not kept")
