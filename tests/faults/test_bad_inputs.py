"""What the store refuses: each case with its remedy, and the store unchanged."""

import hashlib
import json
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest

from stella_assets.core.errors import UserError
from stella_assets.corpus.text import text_id
from stella_assets.storage.database import open_table, table_names
from stella_assets.storage.errors import DiskSpaceError, StoreError, TransferError, VectorError
from stella_assets.storage.integrity import drop_damaged, verify_table
from stella_assets.storage.keys import to_keys
from stella_assets.storage.workspace import Workspace
from stella_assets.teachers.adopt import AdoptionError, adopt_vectors
from stella_assets.teachers.garbage import Needed, collect_garbage
from stella_assets.teachers.imported import imported_fingerprints, require_imported
from stella_assets.teachers.snapshot import Snapshot, current_snapshot, snapshot_tags
from stella_assets.teachers.snapshot_writer import SnapshotWriter, TeacherColumn
from stella_assets.teachers.transfer import Memmap, export_snapshot
from stella_assets.teachers.vectors import VectorTable
from tests.snapshots import Corpus, Teacher, vectors_of, write

if TYPE_CHECKING:
    from stella_assets.recipe import Recipe

IDS = [text_id(f"text number {i}") for i in range(10)]


def unit_vectors(ids: list[str], dim: int = 8) -> np.ndarray:
    return vectors_of(ids, dim, "t").astype(np.float32)


def fill(workspace: Workspace, encode: Callable[[list[str]], np.ndarray], ids: list[str] = IDS, dim: int = 8) -> int:
    return VectorTable(workspace, "f", dim).fill(ids, lambda at: [ids[i] for i in at], encode)


def state(workspace: Workspace) -> str:
    """A digest of everything that the store has committed."""
    content = hashlib.sha256()
    for path in sorted(Path(workspace.vectors).rglob("*")):
        if path.is_file() and path.parent.name not in {"data", "_digests"}:  # files that no version names do not count
            content.update(str(path).encode() + path.read_bytes())
    return content.hexdigest()


@pytest.fixture
def store(workspace: Workspace) -> Workspace:
    fill(workspace, unit_vectors, IDS[:4])
    write(workspace, "one", Corpus(range(30)), Teacher("small", 3))
    return workspace


def with_row(value: float) -> Callable[[list[str]], np.ndarray]:
    def encode(ids: list[str]) -> np.ndarray:
        vectors = unit_vectors(ids)
        vectors[2] = value
        return vectors

    return encode


REFUSED = {
    "a teacher of another dimension": (
        lambda workspace: fill(workspace, lambda ids: unit_vectors(ids, 9), dim=9),
        "holds vectors of 8 dimensions, not vectors of 9 dimensions",
    ),
    "vectors of another dimension": (
        lambda workspace: fill(workspace, lambda ids: unit_vectors(ids, 9)),
        r"shape \(6, 9\), not \(6, 8\)",
    ),
    "fewer rows than texts": (
        lambda workspace: fill(workspace, lambda ids: unit_vectors(ids)[:-1]),
        r"got vectors of shape \(5, 8\), not \(6, 8\), for 6 rows; nothing was stored",
    ),
    "NaN": (
        lambda workspace: fill(workspace, with_row(np.nan)),
        "NaN or infinity.*the first is row 2 of its unit. Nothing was stored",
    ),
    "infinity": (lambda workspace: fill(workspace, with_row(np.inf)), "NaN or infinity"),
    "zero vectors": (lambda workspace: fill(workspace, with_row(0)), "not of unit norm; the first is .* norm 0.0000"),
    "vectors that are not of unit norm": (
        lambda workspace: fill(workspace, lambda ids: unit_vectors(ids) * 3),
        "norm 3.000.*Nothing was stored",
    ),
    "ids that are not hashes": (
        lambda workspace: fill(workspace, unit_vectors, ["row 1", "row 2"]),
        "id 'row 1': an id is 32",
    ),
    "ids that are not hexadecimal": (lambda workspace: fill(workspace, unit_vectors, ["z" * 32]), "not hexadecimal"),
    "ids that are null": (lambda _workspace: to_keys(pa.array([None, IDS[0]])), "1 ids are null"),
    "texts that have no vectors": (
        lambda workspace: VectorTable(workspace, "f", 8).fetch([IDS[0], IDS[9]]),
        f"1 of 2 ids have no value, the first is {IDS[9]}",
    ),
    "a snapshot of texts without vectors": (
        lambda workspace: SnapshotWriter(workspace, "tiny").write(
            "two",
            Corpus(range(90)),
            [
                TeacherColumn(
                    "f", 8, 1.0, {"document": "f"}, lambda ids, _roles: VectorTable(workspace, "f", 8).fetch(ids)
                )
            ],
            {},
        ),
        "ids have no value",
    ),
    "a tag that is not there": (lambda workspace: Snapshot.open(workspace, "tiny", "two"), "is tagged two. It has one"),
    "a recipe that has no snapshot": (
        lambda workspace: current_snapshot(workspace, "huge"),
        "huge.concatenated_vectors: the recipe has no snapshot",
    ),
    "an export over files": (
        lambda workspace: export_snapshot(Snapshot.open(workspace, "tiny", "one"), workspace.root, "npy"),
        "is not an empty folder. Name a new one",
    ),
    "an export of a teacher that is not there": (
        lambda workspace: export_snapshot(
            Snapshot.open(workspace, "tiny", "one"), workspace.root / "x", "npy", ["wide"]
        ),
        "teacher 'wide': the snapshot has small",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_with_the_remedy_and_the_store_stays_as_it_was(store: Workspace, case: str):
    action, message = REFUSED[case]
    before = state(store)
    with pytest.raises((VectorError, StoreError, TransferError), match=message):
        action(store)
    assert state(store) == before
    assert len(VectorTable(store, "f", 8)) == 4
    assert list(snapshot_tags(store, "tiny")) == ["one"]


def _foreign_table(workspace: Workspace) -> None:
    import lance

    lance.write_dataset(pa.table({"a": [1]}), workspace.vectors + "/teacher_vectors.f.lance", mode="overwrite")


def _newer_format(workspace: Workspace) -> None:
    dataset = open_table(workspace, "teacher_vectors.f")
    dataset.update_schema_metadata({"stella.format": "99"})


def _junk(workspace: Workspace) -> None:
    folder = Path(workspace.vectors) / "teacher_vectors.junk.lance"
    folder.mkdir()
    (folder / "holiday.jpg").write_bytes(b"sun")


NOT_A_STORE = {
    "a file in its place": (None, "vectors.*is not a folder|lancedb: is not a folder", "f"),
    "a table of somebody else": (_foreign_table, "a Lance table of another program: it has no `stella.format`", "f"),
    "a newer format": (
        _newer_format,
        "has format 99, and this version of the package reads up to 1",
        "f",
    ),
    "a folder of other things": (_junk, "is not a readable table", "junk"),
}


@pytest.mark.parametrize("case", NOT_A_STORE)
def test_what_is_not_a_store_is_reported_and_left_unchanged(store: Workspace, case: str):
    prepare, message, fingerprint = NOT_A_STORE[case]
    if prepare is None:
        Path(store.vectors).rename(store.root / "moved")
        Path(store.vectors).write_text("not a folder")
    else:
        prepare(store)
    before = state(store)
    with pytest.raises(StoreError, match=message):
        VectorTable(store, fingerprint, 8)
    assert state(store) == before


@pytest.mark.parametrize("case", ["a newer format", "a table of somebody else"])
def test_a_repair_leaves_tables_of_other_programs_unchanged(store: Workspace, case: str):
    NOT_A_STORE[case][0](store)
    before = state(store)
    for attempt in (verify_table, lambda workspace, name: drop_damaged(workspace, name, [])):
        with pytest.raises(StoreError, match=NOT_A_STORE[case][1]):
            attempt(store, "teacher_vectors.f")
    assert state(store) == before


def test_missing_permission_is_reported(tmp_path: Path):
    """Root may write anywhere, so the check gives up its rights first."""
    code = """
import os, sys
from pathlib import Path
from stella_assets.storage.workspace import Workspace
from stella_assets.storage.errors import StorageError
from tests.faults.test_bad_inputs import IDS, fill, unit_vectors
workspace = Workspace(Path(sys.argv[1]))
fill(workspace, unit_vectors, IDS[:4])
for folder in [workspace.root, *workspace.root.rglob("*")]:
    if folder.is_dir() and folder.name != "locks":
        folder.chmod(0o555)
workspace.locks.chmod(0o777)
(workspace.locks / "teacher_vectors.f.lock").chmod(0o666)
if os.getuid() == 0:
    os.setuid(65534)
try:
    fill(workspace, unit_vectors)
except StorageError as error:
    print(type(error).__name__, error)
"""
    with tempfile.TemporaryDirectory() as root:
        Path(root).chmod(0o755)
        done = subprocess.run(
            [sys.executable, "-c", code, f"{root}/workspace"],
            capture_output=True,
            text=True,
            check=False,
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        )
        for folder in Path(root).rglob("*"):
            folder.chmod(0o755)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("AccessError")
    assert "teacher_vectors.f.lance: no permission to read or write it." in done.stdout


def test_too_small_a_disk_is_reported_before_any_work(workspace: Workspace):
    with pytest.raises(DiskSpaceError, match=r"a snapshot of .* needs about 953,674,316,406 MiB and .* MiB are free"):
        workspace.require_space(10**18, "a snapshot of 10,000,000 rows of 12,288 dims", workspace.vectors)


class EchoTeacher:
    """A teacher whose vectors are a fixed function of the text."""

    dim = 8

    def describe(self, role: str) -> dict[str, str]:
        return {"kind": "echo", "role": role}

    def fingerprint(self, role: str) -> str:
        return f"echo{role}"

    def encode(self, texts: list[str], role: str) -> np.ndarray:
        del role
        return unit_vectors([text_id(text) for text in texts])


TEXTS = [f"text number {i}" for i in range(50)]


@pytest.fixture
def memmap(tmp_path: Path) -> Memmap:
    vectors = EchoTeacher().encode(TEXTS, "document") * 2.5  # RAG-Retrieval's are not of unit norm
    vectors.tofile(tmp_path / "vectors.mmap")
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS) + "\n")
    return Memmap(tmp_path / "vectors.mmap", tmp_path / "texts.txt", 8, "float32")


def test_a_memmap_with_text_lines_is_imported_and_found_by_content(memmap: Memmap, workspace: Workspace):
    vectors, texts = memmap.open()
    counts = adopt_vectors(vectors, texts, EchoTeacher(), "document", workspace, "echo")
    assert (counts["rows"], counts["stored"], counts["there_already"]) == (50, 50, 0)
    assert counts["least_cosine"] >= 0.999
    stored = VectorTable(workspace, "echodocument", 8).fetch([text_id(text) for text in TEXTS[::-1]])
    np.testing.assert_allclose(stored, EchoTeacher().encode(TEXTS[::-1], ""), atol=1e-3)
    assert adopt_vectors(vectors, texts, EchoTeacher(), "document", workspace, "echo")["there_already"] == 50


def test_text_lines_may_begin_with_windows_mark_and_must_be_utf8(memmap: Memmap):
    memmap.texts.write_text("\ufeff" + "\n".join(TEXTS), encoding="utf-8")
    assert memmap.open()[1] == TEXTS
    memmap.texts.write_bytes("\n".join([*TEXTS[:2], "caf\u00e9", *TEXTS[3:]]).encode("latin-1"))
    with pytest.raises(TransferError, match=r"texts.txt: line 3 is not UTF-8. Save the file as UTF-8"):
        memmap.open()


def test_no_collector_takes_imported_vectors_until_a_person_gives_them_up(memmap: Memmap, workspace: Workspace):
    vectors, texts = memmap.open()
    adopt_vectors(vectors, texts, EchoTeacher(), "document", workspace, "echo")
    nothing, ids = Needed(frozenset(), frozenset()), [text_id(text) for text in TEXTS]
    computed = VectorTable(workspace, "computed", 8)
    computed.fill(ids, lambda at: [ids[i] for i in at], unit_vectors)
    for superseded in (False, True):
        collect_garbage(workspace, lambda: nothing, dry_run=False, superseded=superseded)
    assert table_names(workspace) == ["teacher_vectors.echodocument"]
    assert len(VectorTable(workspace, "echodocument", 8).fetch(ids)) == 50
    assert imported_fingerprints(workspace) == ["echodocument"]
    needed = Needed({"echodocument"}, frozenset())
    assert collect_garbage(workspace, lambda: needed, dry_run=False, superseded=True, given_up=["echodocument"]) == []
    (gone,) = collect_garbage(workspace, lambda: nothing, dry_run=False, superseded=False, given_up=["echodocument"])
    assert (gone.table, gone.bytes > 0) == ("teacher_vectors.echodocument", True)
    with pytest.raises(UserError, match="echodocument: no vectors were imported"):
        require_imported(workspace, "echodocument")


def test_lines_that_normalisation_changes_or_doubles_are_counted_and_left_out(tmp_path: Path, workspace: Workspace):
    lines = [*TEXTS[:8], "  two  blanks ", TEXTS[0]]
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    EchoTeacher().encode(lines, "").astype(np.float16).tofile(tmp_path / "v.bin")
    vectors, texts = Memmap(tmp_path / "v.bin", tmp_path / "texts.jsonl", 8, "float16").open()
    counts = adopt_vectors(vectors, texts, EchoTeacher(), "document", workspace, "echo")
    assert (counts["stored"], counts["changed_by_normalisation"], counts["doubled"]) == (8, 1, 1)


def _shift(vectors: np.ndarray) -> np.ndarray:
    return np.roll(vectors, 1, axis=0)


def _break(vectors: np.ndarray) -> np.ndarray:
    return np.where(np.arange(len(vectors))[:, None] >= 0, np.nan, vectors)


@pytest.mark.parametrize(
    ("change", "dim", "message"),
    [
        (_shift, 8, "Do the lines of the texts match the rows.*Nothing was stored"),
        (_break, 8, "holds NaN, infinity or only zeros. Is --dtype right"),
        (lambda v: v, 4, "bytes are not 50 rows of 4 dims in float32.*8 dims of float32 would fit"),
        (lambda v: v[:-1], 8, "as .* has 50 lines. Correct --dim"),
        (lambda v: np.concatenate([v, v], axis=1), 16, "has 8 dimensions, the file 16. Correct --dim"),
    ],
    ids=["shifted by a line", "NaN", "wrong dim", "missing row", "another teacher's dim"],
)
def test_a_memmap_that_does_not_fit_is_refused(
    memmap: Memmap, workspace: Workspace, change: Callable, dim: int, message: str
):
    change(memmap.open()[0]).astype(np.float32).tofile(memmap.vectors)
    with pytest.raises((TransferError, AdoptionError), match=message):
        adopt_vectors(
            *Memmap(memmap.vectors, memmap.texts, dim, "float32").open(), EchoTeacher(), "document", workspace, "echo"
        )
    assert table_names(workspace) == []


def test_a_teacher_that_the_recipe_lacks_is_named(tiny: "Recipe", workspace: Workspace):
    from stella_assets.core.errors import UserError
    from stella_assets.core.runner import Runner
    from stella_assets.recipe import Graph
    from stella_assets.teachers.encode import find_teacher, open_teacher

    teachers = {teacher.name: teacher for teacher in tiny.teachers}
    with pytest.raises(UserError, match=r"has no teacher 'gte'; it has minilm, lsa"):
        find_teacher(tiny.name, teachers, "gte")
    runner = Runner(workspace, logging.getLogger("test"))
    with pytest.raises(UserError, match=r"is fitted to the corpus and was not yet.*--select teacher_vectors/lsa"):
        open_teacher(teachers["lsa"], Graph(tiny).teachers["lsa"], runner)
