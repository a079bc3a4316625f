"""Texts whose vectors are similar, found in bounded memory.

Shapes: N texts, P pivots, E evaluation texts, D dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from stella_assets.core.devices import Compute

# One block of a window takes at most BLOCK x 2 EXACT cosines: 256 MiB in float32.
EXACT = 16_384
"""Up to this many texts, all pairs are compared; of more, those that share a pivot."""
NEAR = 4
"""Pivots per text."""
# Rows of one matrix product.
BLOCK = 2048

Read = Callable[[np.ndarray], np.ndarray]
"""Vectors `[n, D]` of rows."""


def most_similar_before(
    read: Read, order_N: np.ndarray, compute: Compute, on_texts: Callable[[int], object] = lambda _texts: None
) -> tuple[np.ndarray, np.ndarray]:
    """For each text the most similar one of those before it: cosine `[N]`, -1 where none is near, and place `[N]`.

    All pairs of up to `EXACT` texts are compared. Of more texts, those pairs that share one of the `NEAR` nearest of
    sqrt(N) texts taken as pivots. In a cluster of more than `EXACT` texts a text is compared with at least that many
    before it.

    Args:
        read: Gives vectors of rows, of any length but 0.
        order_N: Rows by rank; places count in this order.
        compute: Device to compare on.
        on_texts: Called with a number of texts as their clusters are done; above EXACT texts NEAR times for each.

    Returns:
        Cosines `[N]` float32 and places `[N]` int64, both in the order of `order_N`. The place says nothing where the
        cosine is -1.

    References:
        SemDeDup, arXiv 2303.09540. Here clusters overlap, and there is no iteration that would make the result depend
        on the order of sums.
    """
    best_N, place_N = np.full(len(order_N), -1.0, np.float32), np.zeros(len(order_N), np.int64)
    for places in _clusters(read, order_N, compute):
        for begin in range(0, len(places), EXACT):
            # One window before a text's own is enough for the bound in the docstring, and keeps memory constant.
            window = places[max(0, begin - EXACT) : begin + EXACT]
            own = places[begin : begin + EXACT]
            _compare(_unit(read(order_N[window]), compute), window, len(own), best_N, place_N)
            on_texts(len(own))
    return best_N, place_N


def _clusters(read: Read, order_N: np.ndarray, compute: Compute) -> Iterator[np.ndarray]:
    """Places of texts that are near one pivot, ascending."""
    if len(order_N) <= EXACT:
        yield np.arange(len(order_N))
        return
    # sqrt(N) pivots: finding the nearest costs N^1.5, as do the comparisons in clusters of some 4 sqrt(N) texts.
    pivots = np.linspace(0, len(order_N) - 1, int(np.ceil(np.sqrt(len(order_N))))).astype(np.int64)
    near_NP = np.empty((len(order_N), NEAR), np.int32)
    pivots_PD = _unit(read(pivots), compute)  # rows are in the order of ids, which are hashes: as good as random
    for start in range(0, len(order_N), BLOCK):
        cosines = _unit(read(order_N[start : start + BLOCK]), compute) @ pivots_PD.T
        near_NP[start : start + BLOCK] = cosines.topk(NEAR, dim=1).indices.cpu().numpy()
    # Stable: places within a cluster stay ascending, which `_compare` relies on.
    by_pivot = np.argsort(near_NP.ravel(), kind="stable")
    ends = np.cumsum(np.bincount(near_NP.ravel(), minlength=len(pivots)))
    # Entry i of the flattened [N, NEAR] belongs to text i // NEAR.
    yield from np.split(by_pivot // NEAR, ends[:-1])


def _compare(vectors: Any, window: np.ndarray, own: int, best_N: np.ndarray, place_N: np.ndarray) -> None:
    """Compare the last `own` texts of a window with all before them."""
    import torch

    for start in range(len(window) - own, len(window), BLOCK):
        stop = min(start + BLOCK, len(window))
        cosines = vectors[start:stop] @ vectors[:stop].T
        # `>=` masks the text itself, too.
        later = torch.arange(stop, device=vectors.device) >= torch.arange(start, stop, device=vectors.device)[:, None]
        most, at = (side.cpu().numpy() for side in cosines.masked_fill_(later, -1).max(dim=1))
        mine = window[start:stop]
        # A text is in several clusters. Strictly better: with equal cosines the first cluster decides.
        better = most > best_N[mine]
        best_N[mine[better]], place_N[mine[better]] = most[better], window[at[better]]


def similar_pairs(
    blocks: Iterator[np.ndarray], others_ED: np.ndarray, cosine: float, most: int, compute: Compute
) -> np.ndarray:
    """Pairs of a text and another text at or above a cosine, the most similar ones of each of the other texts.

    Args:
        blocks: Vectors `[n, D]` of all texts, one block after another.
        others_ED: Vectors of the other texts.
        cosine: The minimum.
        most: Pairs that are kept for each of the other texts.
        compute: Device to compare on.

    Returns:
        `[pairs]` with the fields `text`, `other` and `cosine`, by `other`, then from the most similar.
    """
    others, found, done = _unit(others_ED, compute), np.empty(0, PAIR), 0
    for block in blocks:
        vectors, new = _unit(block, compute), [found]
        for start in range(0, len(others), BLOCK):
            cosines = vectors @ others[start : start + BLOCK].T
            text, other = (side.cpu().numpy() for side in (cosines >= cosine).nonzero(as_tuple=True))
            pairs = np.empty(len(text), PAIR)
            pairs["text"], pairs["other"] = text + done, other + start
            pairs["cosine"] = cosines[text, other].cpu().numpy()
            new.append(pairs)
        # Cut after every block, so that memory holds at most `most` pairs per other text and one block's.
        found = _most_similar(np.concatenate(new), most)
        done += len(block)
    return found


PAIR = np.dtype([("text", np.int64), ("other", np.int64), ("cosine", np.float32)])


def _most_similar(pairs: np.ndarray, most: int) -> np.ndarray:
    # The last key of lexsort is the first to sort by; `text` decides ties, so blocks of any size give one result.
    pairs = pairs[np.lexsort((pairs["text"], -pairs["cosine"], pairs["other"]))]
    _, first, counts = np.unique(pairs["other"], return_index=True, return_counts=True)
    # Position within its group of equal `other`, below `most`.
    return pairs[np.arange(len(pairs)) - np.repeat(first, counts) < most]


def _unit(vectors: np.ndarray, compute: Compute) -> Any:
    import torch

    # What a store gives may be read-only memory, which torch does not take.
    writable = vectors.astype(np.float32, copy=vectors.dtype != np.float32 or not vectors.flags.writeable)
    # float32, also on a GPU: in bfloat16 cosines near 1 are 1/256 apart.
    return torch.nn.functional.normalize(torch.from_numpy(writable).to(compute.device), dim=1)
