"""The texts of a corpus by role: each role may have a prompt of its own, and so vectors of its own."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from stella_assets.corpus.read import CorpusTexts
from stella_assets.storage.keys import Keys, to_keys
from stella_assets.teachers.kinds.base import Role

ROLES: tuple[Role, ...] = ("document", "query")
"""That a text of a corpus can have."""


Places = npt.NDArray[np.uint32]
"""Positions of texts in a corpus; half as long as others, as there is one for each text."""


def texts_by_role(texts: CorpusTexts) -> Iterator[tuple[Role, Keys, Places]]:
    """For each role in a corpus: the keys of its texts, and their positions."""
    keys, codes, names = _read(texts)
    # Sorted: the order of units, and so of rows in the table, is the same in every run.
    for role in sorted(names):
        here = codes == names.index(role)
        # Not kept here: whoever needs no positions frees them.
        yield role, keys if here.all() else keys[here], np.flatnonzero(here).astype(np.uint32)


def read_keys(texts: CorpusTexts) -> tuple[Keys, np.ndarray]:
    """Keys and roles of all texts of a corpus, in its order."""
    keys, codes, names = _read(texts)
    return keys, np.array(names, dtype=object)[codes] if names else np.empty(0, dtype=object)


def _read(texts: CorpusTexts) -> tuple[Keys, np.ndarray, list[Role]]:
    """Keys, codes of roles, and the roles that these stand for: 17 bytes a text, and no more while they are read."""
    keys, codes = np.empty(len(texts), dtype="S16"), np.zeros(len(texts), dtype=np.int8)
    names: list[Role] = []
    start = 0
    for batch in texts.scan(["id", "role"]):
        end = start + len(batch)
        keys[start:end] = to_keys(batch.column("id"))
        roles = batch.column("role").dictionary_encode()
        found = roles.dictionary.to_pylist()
        names += [name for name in found if name not in names]
        codes[start:end] = np.array([names.index(name) for name in found], dtype=np.int8)[roles.indices.to_numpy()]
        start = end
    return keys, codes, names
