"""`stella vectors audit-api`: does a service give a text the same vector in any request?"""

import copy
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from stella_assets.teachers.api.compositions import TEXTS
from tests.api_server import StandIn, hash_encoder
from tests.conftest import TINY, write_recipe

STELLA = str(Path(sys.executable).with_name("stella"))
KEY = "sk-marker-0123456789abcdef"


def drifting(texts: Sequence[str]) -> np.ndarray:
    """A server whose padding leaks into its vectors."""
    vectors = hash_encoder()(texts)
    vectors[:, 0] += 0.01 * max(map(len, texts)) / 100
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def audit(
    folder: Path, encode: Callable[[Sequence[str]], np.ndarray]
) -> tuple[StandIn, subprocess.CompletedProcess[str]]:
    stand_in = StandIn(encode, key=KEY)
    raw = copy.deepcopy(TINY)
    with stand_in.running() as address:
        raw["teachers"].append(
            {
                "kind": "api",
                "name": "far",
                "licence": "proprietary",
                "service": {"dialect": "openai", "model": "m", "base_url": f"{address}/openai/v1"},
                "key": "STAND_IN_KEY",
                "dim": 32,
                "price": 0.1,
                "terms": {"distribution": "internal", "url": "https://example.com", "read_on": "2026-11-27"},
            }
        )
        command = [STELLA, "vectors", "audit-api", str(write_recipe(folder, raw)), "--teacher", "far", "--json"]
        environment = {**os.environ, "STELLA_HOME": str(folder / "home"), "STAND_IN_KEY": KEY}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    return stand_in, done


def test_a_server_whose_answers_depend_on_what_is_sent_together_is_found_out(tmp_path: Path):
    for folder, encode, differs in ((tmp_path / "a", hash_encoder(), False), (tmp_path / "b", drifting, True)):
        folder.mkdir()
        stand_in, done = audit(folder, encode)
        assert done.returncode == differs, done.stderr
        found = json.loads(done.stdout)
        assert found["differs"] is differs
        cosines = {each["name"]: each["cosine"] for each in found["compositions"]}
        assert cosines["the same request again"] > 0.999999
        assert (cosines["one text in a request"] < 0.9999) == differs
        assert stand_in.counts.texts == TEXTS
        # What was paid is in the accounts.
        (ledger,) = (folder / "home" / "api_costs").iterdir()
        assert sum(json.loads(line)["tokens"] for line in ledger.read_text().splitlines()) == stand_in.counts.tokens
        assert KEY not in done.stdout + done.stderr
