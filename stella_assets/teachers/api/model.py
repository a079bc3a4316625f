"""An opened teacher of kind `api`: looks into its journal, and asks the service for what is not there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from stella_assets.core.data import EmbeddingKind
from stella_assets.core.errors import UserError
from stella_assets.core.progress import money, progress_bar, say_in_log
from stella_assets.core.services import Services
from stella_assets.corpus.read import CorpusTexts
from stella_assets.corpus.text import text_id
from stella_assets.storage.journal import Journal
from stella_assets.storage.keyed_table import KeyedTable
from stella_assets.storage.keys import Keys, Positions, to_ids, to_keys
from stella_assets.storage.locks import file_lock
from stella_assets.teachers.api.accounts import AUDIT, CANARY, IMPORTED, VECTORS, Accounts
from stella_assets.teachers.api.answers import Answer, Refusal
from stella_assets.teachers.api.canaries import CANARIES
from stella_assets.teachers.api.client import ApiClient
from stella_assets.teachers.api.epochs import SAME_NUMBERS, Epochs, Observation
from stella_assets.teachers.api.ledger import Ledger, cost_of
from stella_assets.teachers.api.ordering import Ordering
from stella_assets.teachers.api.refused import RefusedTexts
from stella_assets.teachers.kinds.base import Role, Wanted, fingerprint_of
from stella_assets.teachers.refusal import RefusedTextsError
from stella_assets.teachers.roles import texts_by_role

if TYPE_CHECKING:
    from stella_assets.teachers.kinds.api import ApiTeacher

COUNTED = 16_384
"""Texts of a role whose tokens are counted at most before a run; more would take minutes."""
BLOCK = 2**19
"""Keys that are looked up at a time."""
CANARY_ROLE: Role = "document"
_observed: set[tuple[str, str]] = set()
"""Services whose canaries this process has sent, by workspace."""


class EpochError(UserError):
    """Another model answers behind the name of the one whose vectors are stored."""


class ApiModel:
    """Vectors as a service gave them.

    Args:
        config: The teacher's settings.
        services: Where answers are kept, and where the key is.
    """

    embedding: EmbeddingKind = "vector"

    def __init__(self, config: ApiTeacher, services: Services) -> None:
        self.config = config
        self.dim = config.dimensions
        self._services = services
        self._owner = f"teacher {config.name!r}"
        self._workspace = services.require_workspace(self._owner)
        self._service = config.service_fingerprint()
        self._folder = self._workspace.api / self._service
        self._epochs = Epochs(self._folder)
        # Once: vectors of two epochs must not meet in one table.
        self._epoch = self._epochs.current
        self._journals: dict[str, Journal] = {}
        self._named: set[str] = set()
        self._accounts = Accounts(config, services.recipe, Ledger(self._workspace, self._service))

    def _key(self) -> str | None:
        return self.config.require_key(self._services, self._owner)

    @cached_property
    def _client(self) -> ApiClient:
        return ApiClient(self.config.service, self._key(), self.config.limits, dim=self.dim, say=say_in_log)

    def describe(self, role: Role) -> dict[str, Any]:
        """What the vectors depend on, as far as a client can know: the service, and the epoch of its model."""
        config = self.config
        return {
            "kind": config.kind,
            "model": config.service.model,
            "prompt": config.prompt(role),
            "service": config.service.identity(role),
            "epoch": self._epoch,
            "dim": self.dim,
            "engine": config.service.dialect,
            **({"trusted": config.trusted} if config.trusted else {}),
        }

    def fingerprint(self, role: Role) -> str:
        """Names what `describe` says."""
        return fingerprint_of(self.describe(role))

    def parameters(self) -> int:
        """0: nobody here knows."""
        return 0

    def journal(self, role: Role) -> Journal:
        """What the service has answered for a role in this epoch."""
        fingerprint = self.fingerprint(role)
        if fingerprint not in self._journals:
            self._journals[fingerprint] = Journal(self._folder / "journal" / fingerprint, self.dim)
        return self._journals[fingerprint]

    def _refused(self, role: Role) -> RefusedTexts:
        return RefusedTexts(self._folder / "journal" / self.fingerprint(role))

    def refused(self, role: Role) -> dict[str, str]:
        """Why the service does not take texts, by id."""
        return self._refused(role).reasons()

    def cost(self, texts: Iterable[tuple[Role, Keys, Any]]) -> dict[str, Any]:
        """What the vectors of texts have cost, whenever they were paid."""
        return cost_of((self.journal(role), keys) for role, keys, _ in texts)

    def count_unknown(self, texts: CorpusTexts, stored: Mapping[Role, KeyedTable[Any]]) -> tuple[int, int, str]:
        """Texts of a corpus that would be sent, their tokens, and how these are known. Nothing is sent."""
        counter, count, tokens = self.config.service.counter(), 0, 0.0
        sampled = False
        for role, keys, places in texts_by_role(texts):
            unknown = self._unknown(keys, role, stored[role])
            if not unknown.size:
                continue
            count += len(unknown)
            # Ids are hashes, so the first texts are a random sample.
            sample = unknown[:COUNTED]
            sampled |= len(sample) < len(unknown)
            prompt = self.config.prompt(role)
            read = texts.take(places[sample], ["text"]).column("text").to_pylist()
            tokens += sum(counter.count([prompt + text for text in read])) * len(unknown) / len(sample)
        return count, round(tokens), counter.words + (f"; from {COUNTED:,} texts" if sampled else "")

    def _unknown(self, keys: Keys, role: Role, stored: KeyedTable[Any]) -> Positions:
        """Positions of the keys that neither table nor journal have, and that were not refused."""
        refused, found = self._refused(role).keys(), [np.empty(0, dtype=np.int64)]
        for start in range(0, len(keys), BLOCK):
            block = keys[start : start + BLOCK]
            at = stored.missing(block)
            at = at[~self.journal(role).has(block[at])]
            found.append(start + (at[~np.isin(block[at], refused)] if refused.size else at))
        return np.concatenate(found)

    def encode(self, texts: list[str], role: Role) -> np.ndarray:
        """Vectors `[len(texts), dim]` float16, of unit norm, as they were answered.

        What the journal has is not sent. Every answer is in it before the next one is read.

        Args:
            texts: May repeat.
            role: `query` or `document`.

        Raises:
            RefusedTextsError: The service does not take some of the texts; the others were answered and are kept.
            EpochError: Another model answers than the one that the fingerprint names.
            ApiError: The service cannot be used.
            BudgetError: `max_cost` or `max_tokens` could be exceeded; what was answered is kept.
        """
        ids = [text_id(text) for text in texts]
        place = {key: number for number, key in enumerate(dict.fromkeys(ids))}
        first = dict(zip(ids, texts, strict=True)) if len(place) < len(ids) else None
        distinct = texts if first is None else [first[key] for key in place]
        vectors, reasons = self._encode(to_keys(list(place)), distinct, role)
        if reasons:
            positions = [number for number, key in enumerate(ids) if key in reasons]
            refused = [texts[number] for number in positions]
            raise RefusedTextsError(
                self.config.name, refused, positions, [reasons[ids[number]] for number in positions]
            )
        return vectors if first is None else vectors[[place[key] for key in ids]]

    def keep(self, keys: Keys, vectors: np.ndarray, role: Role) -> int:
        """Keep vectors that were asked for elsewhere; how many the journal did not have."""
        new = ~self.journal(role).has(keys)
        if new.any():
            self.journal(role).append(keys[new], vectors[new], self._accounts.about(0, "", IMPORTED, 0.0))
            self._accounts.write()
        return int(new.sum())

    def encode_again(self, texts: list[str], role: Role, items: int | None = None) -> np.ndarray:
        """What the service answers now, `[len(texts), dim]` float32; the journal is not asked, and pays no part.

        Args:
            texts: May repeat.
            role: `query` or `document`.
            items: Texts of a request, at most; what the limits allow where not given.
        """
        with file_lock(self._workspace, f"api.{self._service}", self._say_waiting):
            vectors, refusals = self._ask_apart(AUDIT, texts, role, items)
        if refusals:
            at = [refusal.position for refusal in refusals]
            reasons = [refusal.reason for refusal in refusals]
            raise RefusedTextsError(self.config.name, [texts[number] for number in at], at, reasons)
        return vectors

    def order(self, wanted: Iterable[Wanted]) -> None:
        """Have texts answered by the provider's batch API, and wait; what it does not answer is left to `encode`.

        Raises:
            ApiError: A batch failed, or the service cannot be used.
            BudgetError: A batch could exceed `max_cost` or `max_tokens`.
        """
        with file_lock(self._workspace, f"api.{self._service}", self._say_waiting):
            ordering = Ordering(self.config, self._key(), self._folder, self._accounts)
            ordering.fetch(wanted, self.fingerprint, self.refused, self._require_epoch)

    def _encode(self, keys: Keys, texts: list[str], role: Role) -> tuple[np.ndarray, dict[str, str]]:
        """Vectors of texts, each once, and the reasons for those that have none."""
        vectors = np.zeros((len(keys), self.dim), dtype=np.float16)
        missing, refused = self._look_up(keys, role, vectors, np.arange(len(keys)))
        if missing.size:
            # One at a time: processes that ask the same service share its limits and what may be spent.
            with file_lock(self._workspace, f"api.{self._service}", self._say_waiting):
                missing, refused = self._look_up(keys, role, vectors, missing)
                if missing.size:
                    self._require_epoch()
                    refused |= self._ask(keys, texts, role, missing, vectors)
        return vectors, refused

    def _look_up(self, keys: Keys, role: Role, vectors: np.ndarray, at: Positions) -> tuple[Positions, dict[str, str]]:
        """Fill in what the journal has; the positions that it has not, and the reasons of those that were refused."""
        journal = self.journal(role)
        found, known = journal.find(keys[at])
        vectors[at[found]] = known
        for damage in set(journal.damages) - self._named:
            self._named.add(damage)
            say_in_log(f"{self.config.name}: journal {damage}", warning=True)
        missing = np.delete(at, found)
        reasons = self.refused(role)
        if not reasons or not missing.size:
            return missing, {}
        ids = to_ids(keys[missing]).to_pylist()
        given_up = np.array([key in reasons for key in ids])
        return missing[~given_up], {key: reasons[key] for key in ids if key in reasons}

    def _ask(self, keys: Keys, texts: list[str], role: Role, missing: Positions, vectors: np.ndarray) -> dict[str, str]:
        journal, budget = self.journal(role), self._accounts.budget()
        with progress_bar(len(missing), self.config.name, "texts") as bar:

            def on_answer(answer: Answer) -> None:
                at = missing[answer.positions]
                vectors[at] = journal.append(keys[at], answer.vectors, self._about(answer, VECTORS))
                cost = "" if budget.cost is None else f", ${money(budget.cost)}"
                bar.note(f"{budget.spent:,} tokens{cost} in all")
                bar.update(len(at))

            prompt = self.config.prompt(role)
            try:
                refusals = self._client.embed([prompt + texts[at] for at in missing], role, on_answer, budget)
            finally:
                self._accounts.write()
        return self._set_aside(keys[missing], role, refusals)

    def _set_aside(self, keys: Keys, role: Role, refusals: list[Refusal]) -> dict[str, str]:
        if not refusals:
            return {}
        at = np.array([refusal.position for refusal in refusals])
        reasons = {key: refusal.reason for key, refusal in zip(to_ids(keys[at]).to_pylist(), refusals, strict=True)}
        self._refused(role).add(reasons)
        say_in_log(
            f"{self.config.name}: texts that the service does not take are left out: {len(reasons):,}. The first: "
            f"{refusals[0].reason}",
            warning=True,
        )
        return reasons

    def _require_epoch(self) -> None:
        """Send the canaries, once per process, before anything else is paid.

        Raises:
            EpochError: Their vectors are those of another model.
        """
        process = (str(self._workspace.root.absolute()), self._service)
        if process in _observed:
            return
        seen = self._observe()
        if seen.changed or seen.epoch != self._epoch:
            raise EpochError(
                f"{self._owner}: another model answers as {self.config.service.model!r} than in epoch {self._epoch} "
                f"(least cosine of the {len(CANARIES)} fixed texts {seen.cosine:.6f}). Its vectors are of epoch "
                f"{seen.epoch} and are stored apart; none of epoch {self._epoch} is lost.",
                "Nothing else was sent. `stella plan` says what it costs to embed all texts with this model; run again "
                "to do so.",
            )
        _observed.add(process)
        if seen.cosine < SAME_NUMBERS:
            say_in_log(
                f"{self.config.name}: the service computes a little differently than before: least cosine of the fixed "
                f"texts {seen.cosine:.7f}. It counts as the same model.",
                warning=True,
            )

    def _observe(self) -> Observation:
        vectors, refusals = self._ask_apart(CANARY, CANARIES, CANARY_ROLE)
        if refusals:
            raise UserError(
                f"{self._owner}: the service does not take a fixed text that its model is recognised by "
                f"({refusals[0].reason}).",
                "Without it nobody would notice that the model changed. Use another service.",
            )
        return self._epochs.observe(vectors)

    def _ask_apart(
        self, purpose: str, texts: Sequence[str], role: Role, items: int | None = None
    ) -> tuple[np.ndarray, list[Refusal]]:
        """Vectors `[len(texts), dim]` float32 of texts that are asked for again, so they are never looked up."""
        vectors = np.zeros((len(texts), self.dim), dtype=np.float32)
        # Kept nevertheless, as the accounts are made of what is kept.
        journal, keys = Journal(self._folder / purpose, self.dim), to_keys([text_id(text) for text in texts])

        def on_answer(answer: Answer) -> None:
            journal.append(keys[answer.positions], answer.vectors, self._about(answer, purpose))
            vectors[answer.positions] = answer.vectors

        prompt = self.config.prompt(role)
        try:
            asked = [prompt + text for text in texts]
            refusals = self._client.embed(asked, role, on_answer, self._accounts.budget(), items)
        finally:
            self._accounts.write()
        return vectors, refusals

    def _about(self, answer: Answer, purpose: str) -> Mapping[str, Any]:
        return self._accounts.about(answer.tokens, answer.request_id, purpose)

    def _say_waiting(self) -> None:
        say_in_log(f"{self.config.name}: another process is asking this service; waiting for its unit.")
