"""The losses of a batch of lists and their gradient, with bounded memory still that of the whole batch.

Shapes: B lists of a batch, C candidates of a list, M documents of a batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from stella_assets.training.dead_losses import Watch
from stella_assets.training.retriever_losses import ListLoss
from stella_assets.training.retrievers.base import Row, Trainee
from stella_assets.training.retrievers.lists import ListBatch
from stella_assets.training.retrievers.together import Together

PASS_ROWS = 64
"""Rows of one pass through the model at most: of similar length, so that padding is short."""


class ListGradients:
    """Puts lists through a retriever, and the gradient of their losses into its parameters.

    Args:
        retriever: Trains.
        losses: Its losses.
        micro_batch_size: Rows whose activations are in memory at once; None for those of the whole batch.
        together: The processes that share each batch; None for this one alone.

    Attributes:
        watch: Looks whether each loss has a gradient; None for no look.
    """

    def __init__(
        self,
        retriever: Trainee,
        losses: Sequence[ListLoss],
        micro_batch_size: int | None = None,
        together: Together | None = None,
    ) -> None:
        self._retriever: Any = retriever  # `all_scores` is there where a loss reads the whole batch
        self._losses = losses
        self._micro, self._together = micro_batch_size, together
        self._reads_batch = any(loss.reads == "batch" for loss in losses)
        self.watch: Watch | None = None

    def backward(self, batch: ListBatch) -> dict[str, float]:
        """Add the gradient of a batch to the parameters'.

        Args:
            batch: On the CPU or on the retriever's device.

        Returns:
            Mean of each weighted loss over the lists; `total`, last.
        """
        if self._together is not None:
            return self._backward_through_scores(batch)
        if self._micro is None:
            return self._backward_of(batch, 1.0)
        return self._backward_through_scores(batch) if self._reads_batch else self._backward_by_lists(batch)

    def scores(self, batch: ListBatch) -> tuple[Tensor, Tensor | None]:
        """Scores `[B, C]` of the candidates, and `[B, M]` of all documents where a loss reads them; no gradients."""
        with torch.no_grad():
            rows = self._retriever.rows(batch)
            return self._score(self._outputs(rows, range(len(rows))), batch)

    def values(self, scores: tuple[Tensor, Tensor | None], batch: ListBatch) -> dict[str, Tensor]:
        """Each loss of each list, `[B]`, with its weight."""
        return {
            loss.loss: loss.weight * loss.value(self._read(loss, scores), batch.to(scores[0].device))
            for loss in self._losses
        }

    def _backward_of(self, batch: ListBatch, share: float) -> dict[str, float]:
        rows = self._retriever.rows(batch)
        total, values = self._total(self._score(self._outputs(rows, range(len(rows))), batch), batch)
        (total * share).backward()
        return values

    def _backward_by_lists(self, batch: ListBatch) -> dict[str, float]:
        """Some lists at a time: each of these losses is a mean over lists, so its gradient is the mean of theirs."""
        assert self._micro is not None
        sums: dict[str, float] = {}
        first = 0
        while first < len(batch):
            last, rows = first + 1, 1 + int(batch.there_BC[first].sum())
            # Whole lists; one that is longer than that is a part of its own.
            while last < len(batch) and (rows := rows + 1 + int(batch.there_BC[last].sum())) <= self._micro:
                last += 1
            share = (last - first) / len(batch)
            for name, value in self._backward_of(batch.part(first, last), share).items():
                sums[name] = sums.get(name, 0.0) + value * share
            first = last
        return sums

    def _backward_through_scores(self, batch: ListBatch) -> dict[str, float]:
        """Outputs first without their graphs; then the gradient by them; then each part again, with its graph.

        References:
            Gao et al. 2021, GradCache, arXiv 2101.06983.
        """
        rows = self._retriever.rows(batch)
        together = self._together
        # Each process passes its own rows through the model, and computes the losses of the whole batch.
        own = range(len(rows)) if together is None else together.share(len(rows))
        with torch.no_grad():
            outputs = self._outputs(rows, own)
            if together is not None:
                outputs = together.gather(outputs, len(rows))
        leaves = [output.detach().requires_grad_() for output in outputs]
        total, values = self._total(self._score(leaves, batch), batch)
        total.backward()
        for places in self._passes(rows, own):
            again = self._retriever.outputs([rows[place] for place in places])
            # What no score depends on has no gradient.
            parts = [(new, leaves[place].grad) for new, place in zip(again, places, strict=True)]
            wanted = [(new, gradient) for new, gradient in parts if gradient is not None]
            torch.autograd.backward([new for new, _ in wanted], [gradient for _, gradient in wanted])
        if together is not None:
            together.add_gradients([weight for weights, _ in self._retriever.groups() for weight in weights])
        return values

    def _outputs(self, rows: Sequence[Row], places: Sequence[int]) -> list[Tensor]:
        found: dict[int, Tensor] = {}
        for chosen in self._passes(rows, places):
            found.update(zip(chosen, self._retriever.outputs([rows[place] for place in chosen]), strict=True))
        return [found[place] for place in places]

    def _passes(self, rows: Sequence[Row], places: Sequence[int]) -> Iterator[list[int]]:
        """Rows that go through the model together: of one task, and of similar length."""
        most = min(PASS_ROWS, self._micro or PASS_ROWS)
        for task in dict.fromkeys(rows[place].task for place in places):
            own = [place for place in places if rows[place].task == task]
            # Stable, so that ties are in the same order in a run that was resumed.
            own.sort(key=lambda place: -len("".join(rows[place].text)))
            yield from (own[start : start + most] for start in range(0, len(own), most))

    def _score(self, outputs: Sequence[Tensor], batch: ListBatch) -> tuple[Tensor, Tensor | None]:
        if not self._reads_batch:
            return self._retriever.scores(outputs, batch), None
        score_BM = self._retriever.all_scores(outputs, batch)
        return score_BM.gather(1, batch.place_BC.to(score_BM.device)), score_BM

    def _total(self, scores: tuple[Tensor, Tensor | None], batch: ListBatch) -> tuple[Tensor, dict[str, float]]:
        terms = {name: value_B.mean() for name, value_B in self.values(scores, batch).items()}
        if self.watch:
            for loss in self._losses:
                self.watch.look(loss.loss, terms[loss.loss], self._read(loss, scores))
        total = torch.stack(list(terms.values())).sum()
        return total, {**{name: term.item() for name, term in terms.items()}, "total": total.item()}

    def _read(self, loss: ListLoss, scores: tuple[Tensor, Tensor | None]) -> Tensor:
        own_BC, every_BM = scores
        if loss.reads == "list":
            return own_BC
        assert every_BM is not None, "a loss reads it"
        return every_BM
