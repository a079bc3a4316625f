"""Lists of candidates: for each pair a query, what answers it, and documents that do not.

Shapes: N lists of a split, B lists of a batch, C candidates of a list, M documents of a batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stella_assets.training.retrievers.candidates import NONE, Candidates
from stella_assets.training.retrievers.texts import Texts


@dataclass(frozen=True)
class ListBatch:
    """The lists of a batch. Places are positions among its documents, of which each is there once.

    Attributes:
        ids: Of the queries.
        queries: Their texts.
        documents: Texts.
        place_BC: Place of each candidate; what answers the query comes first.
        there_BC: Which entries stand for a candidate.
        positive_BC: Which candidates are known to answer the query.
        score_BC: Scores by which candidates are learnt, float32; 0 where there is no candidate or no score.
        answers_BM: Whether the document of a column is known to answer the query of a row, or is the query itself.
        deviation: Standard deviation of the scores within a list, in all training lists.
        center: Mean of the scores of all training lists.
    """

    ids: list[str]
    queries: list[str]
    documents: list[str]
    place_BC: Tensor
    there_BC: Tensor
    positive_BC: Tensor
    score_BC: Tensor
    answers_BM: Tensor
    deviation: float
    center: float = 0.0

    def __len__(self) -> int:
        return len(self.queries)

    def scaled_scores(self) -> Tensor:
        """`score_BC` in units of the deviation."""
        return self.score_BC / self.deviation

    def part(self, first: int, last: int) -> ListBatch:
        """The lists from one on up to another one, with the documents of these alone."""
        rows = slice(first, last)
        there_BC = self.there_BC[rows]
        used_M, inverse = torch.unique(self.place_BC[rows][there_BC], return_inverse=True)
        place_BC = torch.zeros_like(self.place_BC[rows])
        place_BC[there_BC] = inverse
        return ListBatch(
            self.ids[rows],
            self.queries[rows],
            [self.documents[place] for place in used_M.tolist()],
            place_BC,
            there_BC,
            self.positive_BC[rows],
            self.score_BC[rows],
            self.answers_BM[rows][:, used_M],
            self.deviation,
            self.center,
        )

    def to(self, device: torch.device) -> ListBatch:
        """The same on a device."""
        moved = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return ListBatch(**{**{name: getattr(self, name) for name in self.__dataclass_fields__}, **moved})


class CandidateLists:
    """The lists of a split, with the texts that are in them.

    Args:
        found: The lists, as positions in the corpus.
        texts: Those of the corpus that are in the lists, or more.
        deviation: Standard deviation of the scores within a list, in all training lists.
        center: Mean of the scores of all training lists.
    """

    def __init__(self, found: Candidates, texts: Texts, deviation: float, center: float = 0.0) -> None:
        self._found, self._texts, self._deviation, self._center = found, texts, deviation, center
        # One number per known answer, sorted, so that a batch looks up its own.
        self._answers = np.sort(_keys(found.known_query, found.known_positive))

    def __len__(self) -> int:
        return len(self._found.query_N)

    def ids(self, rows: np.ndarray) -> list[str]:
        """Ids of the queries of some lists."""
        return [self._found.ids[at] for at in self._found.query_N[rows].tolist()]

    def batch(self, rows: np.ndarray) -> ListBatch:
        """Some lists.

        Args:
            rows: Their positions, `[B]`.
        """
        query_B, document_BC = self._found.query_N[rows], self._found.document_NC[rows]
        there_BC = document_BC != NONE
        documents_M = np.unique(document_BC[there_BC])
        place_BC = np.where(there_BC, np.searchsorted(documents_M, document_BC), 0)
        answers_BM = self._are_answers(query_B[:, None], documents_M[None, :])
        positive_BC = there_BC & np.take_along_axis(answers_BM, place_BC, axis=1)
        score_BC = np.nan_to_num(self._found.score_NC[rows], nan=0.0)
        texts = self._texts.read(np.concatenate([query_B, documents_M]))
        return ListBatch(
            [self._found.ids[at] for at in query_B.tolist()],
            texts[: len(query_B)],
            texts[len(query_B) :],
            torch.from_numpy(place_BC),
            torch.from_numpy(there_BC),
            torch.from_numpy(positive_BC),
            torch.from_numpy(score_BC.astype(np.float32)),
            torch.from_numpy(answers_BM | (query_B[:, None] == documents_M[None, :])),
            self._deviation,
            self._center,
        )

    def _are_answers(self, query: np.ndarray, document: np.ndarray) -> np.ndarray:
        wanted = _keys(query, document)
        at = np.searchsorted(self._answers, wanted).clip(max=len(self._answers) - 1)
        found: np.ndarray = self._answers[at] == wanted
        return found


def _keys(query: np.ndarray, document: np.ndarray) -> np.ndarray:
    return (query.astype(np.int64) << 32) | document.astype(np.int64)
