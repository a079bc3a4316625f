"""Records that a workspace keeps next to its artefacts: of each flipped bit they give what was written, or an error."""

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from stella_assets.core.errors import UserError
from stella_assets.lineage.verify import verify_files
from stella_assets.redistil.ledger import Entry, Ledger
from stella_assets.storage.artefacts import MANIFEST
from stella_assets.storage.canonical import digest
from stella_assets.storage.database import has_tag, table_names
from stella_assets.storage.errors import StorageError
from stella_assets.storage.integrity import verify_table
from stella_assets.storage.journal import Journal
from stella_assets.storage.journal_repair import damaged_journals
from stella_assets.storage.keys import to_keys
from stella_assets.storage.lines import append_lines
from stella_assets.storage.releases import Releases
from stella_assets.storage.sealed import seal, unseal
from stella_assets.storage.shards import ShardStore
from stella_assets.storage.workspace import Workspace
from stella_assets.teachers.api.epochs import Epochs
from stella_assets.teachers.api.ledger import cost_of
from stella_assets.teachers.api.orders import Orders
from stella_assets.teachers.api.refused import RefusedTexts
from stella_assets.teachers.tables import COSTS
from stella_assets.training.start import Start, read_start, set_start
from tests.snapshots import Corpus, Teacher, write

FLIPS = 400
KEYS = to_keys([f"{number:032x}" for number in range(12)])


@dataclass(frozen=True)
class Kept:
    """A record: its file, what it is read as, and whether less of it may be read, which is then asked for again."""

    file: Path
    read: Callable[[], Any]
    may_lack: bool = False


def epochs(workspace: Workspace) -> Kept:
    service = workspace.api / "service"
    service.mkdir(parents=True)
    vectors = np.eye(4, dtype=np.float32)
    for each in (vectors, vectors[::-1]):
        Epochs(service).observe(each)
    return Kept(service / "epochs.json", lambda: Epochs(service)._read())


def refused(workspace: Workspace) -> Kept:
    texts = RefusedTexts(workspace.api / "service" / "journal" / "a")
    texts.add({"1" * 32: "too long", "2" * 32: "flagged"})
    file = workspace.api / "service" / "journal" / "a" / "refused.jsonl"
    return Kept(file, lambda: list(texts.reasons().items()), may_lack=True)


def order(workspace: Workspace) -> Kept:
    orders = Orders(workspace.api / "service")
    made = orders.write(orders.add("a", KEYS, (5, 7), 99), file="file-1", batch="batch-1")
    return Kept(orders.folder / f"{made.name}.json", lambda: list(orders))


def keys_of_an_order(workspace: Workspace) -> Kept:
    orders = Orders(workspace.api / "service")
    made = orders.add("a", KEYS, (5, 7), 99)
    return Kept(orders.folder / f"{made.name}.keys", lambda: [each.tolist() for each in orders.keys(made)])


def ledger(workspace: Workspace) -> Kept:
    kept = Ledger(workspace, "r")
    for verdict in ("promoted", "nothing new"):
        kept.add(Entry("2026-01-01", "r", verdict, "new texts", {"corpus": "1" * 32}, 12, score=61.25))
    return Kept(workspace.redistillations / "r.jsonl", lambda: list(map(repr, kept.entries())), may_lack=True)


def release(workspace: Workspace) -> Kept:
    artefact = workspace.artefacts / "release" / "0123456789abcdef"
    artefact.mkdir(parents=True)
    (artefact / MANIFEST).write_text("{}")
    releases = Releases(workspace, "r")
    names = releases.promote(artefact, "first", {"digest": "1" * 32, "mean_score": 61.25}).keys()
    return Kept(workspace.releases / "r" / "first.json", lambda: [releases.record("first")[name] for name in names])


def start(workspace: Workspace) -> Kept:
    set_start(workspace, "r", Start("stage_2", "0123456789abcdef", "1" * 32))
    return Kept(workspace.starts / "r.json", lambda: read_start(workspace, "r"))


RECORDS = [epochs, refused, order, keys_of_an_order, ledger, release, start]


def flipped(content: bytes) -> Iterator[bytes]:
    bits = range(8 * len(content))
    for at in Random(0).sample(bits, min(FLIPS, len(bits))):
        changed = bytearray(content)
        changed[at // 8] ^= 1 << at % 8
        yield bytes(changed)


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
def test_a_record_gives_what_was_written_or_an_error(record: Callable[[Workspace], Kept], workspace: Workspace):
    kept = record(workspace)
    whole, content = kept.read(), kept.file.read_bytes()
    errors = []
    for changed in flipped(content):
        kept.file.write_bytes(changed)
        try:
            found = kept.read()
        except (UserError, StorageError) as error:
            errors.append(str(error))
        else:
            assert found == whole or (kept.may_lack and set(found) < set(whole))
    assert all(str(kept.file) in error for error in errors)
    assert len(errors) > 300 or record is refused
    kept.file.write_bytes(content)
    assert kept.read() == whole


def test_verify_names_what_is_damaged_of_services(workspace: Workspace):
    for record in (epochs, refused, order, ledger, start):
        kept = record(workspace)
        assert list(verify_files(workspace)) == []
        content = kept.file.read_bytes()
        at = content.index(b"1") + 1
        kept.file.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        [found] = verify_files(workspace)
        assert found.place.startswith(("api/service", "redistillations/r.jsonl", "starts/r.json"))
        assert found.remedy
        shutil.rmtree(workspace.root)


def shard(workspace: Workspace) -> Kept:
    import polars as pl

    store = ShardStore(workspace, "cleaned")
    store.get("0a", lambda: pl.DataFrame({"id": ["a"]}))
    return Kept(store.path("0a"), lambda: store.read("0a"))


def costs(workspace: Workspace) -> Kept:
    file = workspace.root / COSTS.folder / "service.jsonl"
    append_lines(file, [{"dollars": 1}])
    return Kept(file, file.read_text)


def journal(workspace: Workspace) -> Kept:
    Journal(workspace.api / "service" / "journal", 2).append(KEYS, np.ones((12, 2), np.float32), {})
    [file] = (workspace.api / "service" / "journal").iterdir()
    return Kept(file, lambda: None)


def tag(workspace: Workspace) -> Kept:
    write(workspace, "one", Corpus(range(20)), Teacher("small", 3))
    file = next(Path(workspace.vectors).glob("*/_refs/tags/one.json"))
    return Kept(file, lambda: has_tag(workspace, "tiny.concatenated_vectors", "one"))


@pytest.mark.parametrize("target", ["", "itself", "gone"])
@pytest.mark.parametrize(
    "record", [epochs, order, ledger, release, start, shard, costs, journal, tag], ids=lambda record: record.__name__
)
def test_a_folder_or_a_link_in_place_of_a_file_is_named(
    record: Callable[[Workspace], Kept], workspace: Workspace, target: str
):
    kept = record(workspace)
    kept.file.unlink()
    if target:
        kept.file.symlink_to(kept.file.name if target == "itself" else target)
    else:
        kept.file.mkdir()
    tables = (damage for name in table_names(workspace) for damage in verify_table(workspace, name).damages)
    found = [*verify_files(workspace), *damaged_journals(workspace.api), *tables]
    assert any(kept.file.stem in str(each) for each in found) or (record is tag and target != "gone" and found)
    with contextlib.suppress(UserError, StorageError, OSError):
        assert not kept.read()
        assert record is not start


def test_a_line_that_a_killed_process_left_is_no_damage(workspace: Workspace):
    kept = refused(workspace)
    content = kept.file.read_bytes()
    for cut in range(2, 40):
        kept.file.write_bytes(content[:-cut])
        assert kept.read() == [("1" * 32, "too long")]
        assert list(verify_files(workspace)) == []


def test_what_a_damaged_answer_cost_is_left_out(tmp_path: Path):
    journal = Journal(tmp_path, 2)
    for start, tokens in ((0, 111), (6, 55)):
        keys = KEYS[start : start + 6]
        journal.append(keys, np.ones((6, 2), np.float32), {"tokens": tokens, "dollars": 0.5})
    assert cost_of(iter([(journal, KEYS)])) == {"texts": 12, "requests": 2, "tokens": 166, "dollars": 1.0}
    [file] = tmp_path.iterdir()
    content = file.read_bytes()
    for damage in (content.replace(b": 111", b": 911"), content.replace(b'"tokens": 111', b'"tokens"; 111')):
        assert damage != content
        file.write_bytes(damage)
        left = {"texts": 6, "requests": 1, "tokens": 55, "dollars": 0.5}
        assert cost_of(iter([(Journal(tmp_path, 2), KEYS)])) == left


def test_a_seal_is_the_digest_of_manifests_and_older_records_have_none():
    content = {"b": [1, 0.5, None, "ä"], "a": {"x": True}}
    assert seal(content) == {**content, "seal": digest(content)}
    assert unseal(json.loads(json.dumps(seal(content)))) == unseal(content) == content
    for wrong in ([], "a", {**seal(content), "c": 1}, {**seal(content), "a": {}}):
        with pytest.raises(ValueError, match=r"not a mapping|another one"):
            unseal(wrong)
