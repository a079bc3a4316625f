"""Run the code of a card in a clean process, as its readers will.

`python -m stella_assets.release.retrievers.run_code REQUEST.json ANSWER.npz`: the request has `code`, and the values
of the names that it uses. The answer is what the code leaves as `scores`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stella_assets.core.errors import UserError
from stella_assets.core.processes import read_matrices, run_clean

FOLDER = "path/to/this/folder"
"""In the code of a card, the folder of the model."""


class CardCodeError(UserError):
    """The code of a card does not run, or gives other scores than the model that was evaluated."""


def scores_of_code(
    code: str, folder: Path, queries: Sequence[str], documents: Sequence[str], scratch: Path
) -> np.ndarray:
    """The scores that the code of a card gives in a process of its own.

    Args:
        code: With `FOLDER` in place of the model's folder.
        folder: Of the model.
        queries: That the code scores.
        documents: With each of which it scores them.
        scratch: For the files that the processes exchange.

    Returns:
        `[queries, documents]`.

    Raises:
        CardCodeError: The code fails.
    """
    request = {"code": code.replace(FOLDER, str(folder)), "names": {"queries": queries, "documents": documents}}
    done, answered = run_clean(__name__, request, scratch)
    if done.returncode:
        raise CardCodeError(
            f"{folder}: the code of the card does not run in a clean process.\n{done.stderr[-2000:]}",
            "Look at the versions of the installed libraries.",
        )
    return read_matrices(answered)["scores"]


def main() -> None:
    """Run what the request asks for."""
    request, answer = sys.argv[1:]
    asked: Mapping[str, Any] = json.loads(Path(request).read_text(encoding="utf-8"))
    names = dict(asked["names"])
    exec(asked["code"], names)  # noqa: S102 (of this package: the template of a card)
    import torch

    # On whatever device the library chose.
    np.savez(answer, allow_pickle=False, scores=torch.as_tensor(names["scores"]).cpu().numpy())


if __name__ == "__main__":
    main()
