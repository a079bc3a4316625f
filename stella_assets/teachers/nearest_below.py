"""The nearest documents of queries below a bound: exact, block by block, in bounded memory.

Shapes: Q queries, N documents, D dimensions, q queries and n documents of a block, K nearest documents, H hits.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

QUERY_BLOCK, DOCUMENT_BLOCK = 1024, 8192
"""A block of cosines is 32 MiB: large enough for the speed of one product, small enough for two in any memory."""


def positive_aware_bound(positive_Q: Tensor, ratio: float) -> Tensor:
    """The cosine from which on a text is too near a query to be its negative: a share of the positive's cosine.

    Args:
        positive_Q: Cosines of queries with what answers them.
        ratio: The share, above 0 and at most 1.

    References:
        Moreira et al. 2024, NV-Retriever, arXiv 2407.15831: `TopK-PercPos`.
    """
    # Below the positive also where that is negative.
    return positive_Q - (1 - ratio) * positive_Q.abs()


def nearest_below(
    queries_QD: Tensor,
    documents_ND: np.ndarray,
    bound_Q: Tensor,
    known_QN: tuple[Tensor, Tensor],
    nearest: int,
) -> tuple[Tensor, Tensor]:
    """For each query the documents of the highest cosines below its bound, without those that are known.

    Args:
        queries_QD: Unit vectors of one block of queries, on the device that computes.
        documents_ND: Unit vectors, float16 or float32, e.g. mapped from a file.
        bound_Q: Cosines that are not reached; infinity for no bound.
        known_QN: Positions of queries and of documents that are never taken, ascending by document.
        nearest: K.

    Returns:
        Cosines `[Q, K]`, the highest first and of equal ones the first document, and positions of documents; minus
        infinity and -1 where there are fewer.
    """
    device = queries_QD.device
    best_QK = torch.full((len(queries_QD), nearest), -torch.inf, device=device)
    place_QK = torch.full((len(queries_QD), nearest), -1, dtype=torch.int64, device=device)
    known_query, known_document = (side.to(device) for side in known_QN)
    for start, block_nD in _blocks(documents_ND, device):
        cosines_Qn = queries_QD @ block_nD.T
        first, last = torch.searchsorted(known_document, torch.tensor([start, start + len(block_nD)], device=device))
        cosines_Qn[known_query[first:last], known_document[first:last] - start] = -torch.inf
        # Most cosines are below what was found before: the search goes over the few that are not.
        hits_Qn = (cosines_Qn > best_QK[:, -1:]) & (cosines_Qn < bound_Q[:, None])
        if start == 0:
            # Nothing was found before, so nearly all of the first block are hits.
            cosines_Qn.masked_fill_(~hits_Qn, -torch.inf)
            kth = min(nearest, len(block_nD))
            least_Q = cosines_Qn.topk(kth, dim=1).values[:, -1:]
            hits_Qn &= cosines_Qn >= least_Q
        query_H, at_H = hits_Qn.nonzero(as_tuple=True)
        if len(query_H):
            best_QK, place_QK = _merge(best_QK, place_QK, query_H, cosines_Qn[query_H, at_H], at_H + start)
    return best_QK, place_QK


def _blocks(documents_ND: np.ndarray, device: torch.device) -> Iterator[tuple[int, Tensor]]:
    for start in range(0, len(documents_ND), DOCUMENT_BLOCK):
        # A copy, as a mapped file is read-only; converted here, as float16 is half of what has to be kept.
        block = torch.from_numpy(np.array(documents_ND[start : start + DOCUMENT_BLOCK]))
        yield start, block.to(device).float()


def _merge(
    best_QK: Tensor, place_QK: Tensor, query_H: Tensor, cosine_H: Tensor, document_H: Tensor
) -> tuple[Tensor, Tensor]:
    """The best of what was found before and of the hits, which come by query and then by document."""
    queries, nearest = best_QK.shape
    rows = torch.cat([torch.arange(queries, device=best_QK.device).repeat_interleave(nearest), query_H])
    values, places = torch.cat([best_QK.flatten(), cosine_H]), torch.cat([place_QK.flatten(), document_H])
    # Stable sorts, the last key first: documents found before are before the hits, so equal cosines keep their order.
    order = torch.sort(values, descending=True, stable=True).indices
    order = order[torch.sort(rows[order], stable=True).indices]
    sorted_rows = rows[order]
    # Each query has at least K entries; these are its first ones.
    starts = torch.searchsorted(sorted_rows, torch.arange(queries, device=rows.device))
    chosen = order[starts[:, None] + torch.arange(nearest, device=rows.device)]
    return values[chosen], places[chosen]
