"""Tables by key, with every codec: filled once, resumed where they stopped, read in any order."""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stella_assets.storage.codecs import Binary, Codec, FixedVectors, RaggedVectors, Scalars
from stella_assets.storage.database import count_rows, has_tag, open_table, set_tag, table_tags
from stella_assets.storage.errors import MissingKeysError, StoreError, VectorError
from stella_assets.storage.garbage import clean_table
from stella_assets.storage.integrity import verify_table
from stella_assets.storage.keyed_table import KeyedTable
from stella_assets.storage.keys import to_ids, to_keys
from stella_assets.storage.unit_writer import UnitWriter, WrittenUnit
from stella_assets.storage.workspace import Workspace

DIM = 4
IDS = [f"{number:032x}" for number in np.random.default_rng(0).permutation(60)]
TEXTS = [f"text {number}" for number in range(60)]


def seed(text: str) -> np.random.Generator:
    return np.random.default_rng(int(text.split()[1]))


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def vectors(texts: list[str]) -> np.ndarray:
    return unit(np.stack([seed(text).standard_normal(DIM) for text in texts]))


def token_vectors(texts: list[str]) -> list[np.ndarray]:
    return [unit(seed(text).standard_normal((1 + len(text) % 3, DIM))) for text in texts]


def scores(texts: list[str]) -> np.ndarray:
    return np.array([seed(text).standard_normal() for text in texts], dtype=np.float32)


def images(texts: list[str]) -> list[bytes]:
    return [seed(text).bytes(20) for text in texts]


KINDS: dict[str, tuple[Codec[Any], Callable[[list[str]], Any], Callable[[Any], Any]]] = {
    "fixed": (FixedVectors(DIM), vectors, lambda values: values * 2),
    "fixed of any norm": (FixedVectors(DIM, unit_norm=False), lambda t: vectors(t) * 3, lambda values: values * np.nan),
    "ragged": (RaggedVectors(DIM), token_vectors, lambda values: [block * 2 for block in values]),
    "scalars": (Scalars(), scores, lambda values: values * np.inf),
    "binary": (Binary(), images, lambda values: values[1:]),
}


def reader(positions: np.ndarray) -> list[str]:
    return [TEXTS[i] for i in positions]


def require_equal(found: Any, expected: Any) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        if isinstance(other, bytes):
            assert one == other
        else:
            np.testing.assert_array_equal(one, np.asarray(other).astype(np.asarray(one).dtype))


@pytest.mark.parametrize("kind", KINDS)
def test_values_are_computed_once_in_units_and_read_in_any_order(workspace: Workspace, kind: str):
    codec, compute, _ = KINDS[kind]
    batches: list[list[str]] = []

    def watched(texts: list[str]) -> Any:
        batches.append(texts)
        return compute(texts)

    assert KeyedTable(workspace, "t", codec).fill(IDS[:20], reader, watched, unit_rows=10) == 20
    assert KeyedTable(workspace, "t", codec).fill(IDS, reader, watched, unit_rows=15) == 40
    assert KeyedTable(workspace, "t", codec).fill(IDS, reader, watched) == 0
    assert batches == [TEXTS[:10], TEXTS[10:20], TEXTS[20:35], TEXTS[35:50], TEXTS[50:]]
    order = np.random.default_rng(1).permutation(60)
    table = KeyedTable(workspace, "t", codec)
    require_equal(table.fetch([IDS[i] for i in order]), compute([TEXTS[i] for i in order]))
    assert len(table.fetch([])) == 0
    report = verify_table(workspace, "t")
    assert (report.damages, report.rows) == ([], 60)


@pytest.mark.parametrize("kind", KINDS)
def test_a_failed_fill_continues_with_the_missing_units(workspace: Workspace, kind: str):
    codec, compute, _ = KINDS[kind]

    def failing(texts: list[str]) -> Any:
        if TEXTS[20] in texts:
            raise OSError("the device is gone")
        return compute(texts)

    with pytest.raises(OSError, match="the device is gone"):
        KeyedTable(workspace, "t", codec).fill(IDS, reader, failing, unit_rows=10)
    assert len(KeyedTable(workspace, "t", codec)) == 20
    assert KeyedTable(workspace, "t", codec).fill(IDS, reader, compute, unit_rows=10) == 40
    require_equal(KeyedTable(workspace, "t", codec).fetch(IDS), compute(TEXTS))


@pytest.mark.parametrize("kind", KINDS)
def test_bad_values_are_refused_and_the_table_stays_as_it_was(workspace: Workspace, kind: str):
    codec, compute, spoil = KINDS[kind]
    KeyedTable(workspace, "t", codec).fill(IDS[:4], reader, compute)
    with pytest.raises(VectorError, match=r"^t: .*othing was stored"):
        KeyedTable(workspace, "t", codec).fill(IDS, reader, lambda texts: spoil(compute(texts)))
    assert len(KeyedTable(workspace, "t", codec)) == 4


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "fixed"])
def test_a_table_of_another_kind_is_refused(workspace: Workspace, kind: str):
    KeyedTable(workspace, "t", Scalars()).fill(IDS, reader, scores)
    other = FixedVectors(DIM) if kind == "scalars" else KINDS[kind][0]
    with pytest.raises(VectorError, match="holds values of type float, not"):
        KeyedTable(workspace, "t", other)


def test_an_id_without_a_value_is_named(workspace: Workspace):
    table = KeyedTable(workspace, "t", Scalars())
    table.fill(IDS[:5], reader, scores)
    with pytest.raises(MissingKeysError, match=f"1 of 3 ids have no value, the first is {IDS[9]}"):
        table.fetch([IDS[0], IDS[9], IDS[1]])


def _work(writer: UnitWriter[Any], keys: np.ndarray, texts: list[str]) -> WrittenUnit:
    return writer.write(keys, vectors(texts))


def test_units_that_other_processes_write_are_committed_in_order_and_equal_to_those_written_here(tmp_path: Path):
    here, there = (Workspace(tmp_path / name) for name in ("here", "there"))
    KeyedTable(here, "t", FixedVectors(DIM)).fill(IDS, reader, vectors, unit_rows=8)
    table, keys = KeyedTable(there, "t", FixedVectors(DIM)), to_keys(IDS)
    rounds: list[int] = []
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:

        def compute(units: Sequence[np.ndarray]) -> Iterator[WrittenUnit]:
            rounds.append(len(units))
            return pool.map(_work, [table.writer] * len(units), [keys[u] for u in units], map(reader, units))

        assert table.fill_units(IDS, compute, workers=3, unit_rows=8) == 60
    assert rounds == [3, 3, 2]
    assert open_table(there, "t").to_table().equals(open_table(here, "t").to_table())
    assert verify_table(there, "t").damages == []


def test_a_unit_that_was_written_and_not_committed_is_not_part_of_the_table(workspace: Workspace):
    table = KeyedTable(workspace, "t", Scalars())
    written = table.writer.write(to_keys(IDS[:10]), scores(TEXTS[:10]))
    assert written.rows == 10
    assert len(KeyedTable(workspace, "t", Scalars())) == 0
    table.commit([written])
    assert len(KeyedTable(workspace, "t", Scalars())) == 10


def test_keys_and_ids_are_two_forms_of_the_same(workspace: Workspace):
    assert to_ids(to_keys(IDS)).to_pylist() == IDS
    assert to_ids(to_keys([])).to_pylist() == []


@pytest.mark.parametrize("blank", [" ", "\t", "\n"])
def test_blanks_in_an_id_are_refused_and_do_not_move_the_ids_behind_it(blank: str):
    wrong = IDS[1][:16] + 2 * blank + IDS[1][18:]
    with pytest.raises(StoreError, match="not hexadecimal"):
        to_keys([IDS[0], wrong, IDS[2]])
    with pytest.raises(StoreError, match="not hexadecimal"):
        to_keys([wrong] * 16)  # 32 blanks, so that whole keys would be missing


def test_the_count_of_rows_follows_every_version(workspace: Workspace):
    assert count_rows(workspace, "t") == 0
    table = KeyedTable(workspace, "t", Scalars())
    for end in (10, 30, 60):
        table.fill(IDS[:end], reader, scores)
        assert count_rows(workspace, "t") == count_rows(workspace, "t") == end
    dataset = open_table(workspace, "t")
    dataset.delete(f"id = '{IDS[0]}'")
    assert count_rows(workspace, "t") == 59
    Path(dataset.uri).rename(workspace.root / "moved")
    assert count_rows(workspace, "t") == 0
    KeyedTable(workspace, "t", Scalars()).fill(IDS[:7], reader, scores)  # a new table of the same name
    assert count_rows(workspace, "t") == 7


def test_a_tag_is_seen_when_its_version_is_there(workspace: Workspace):
    assert not has_tag(workspace, "t", "one")
    KeyedTable(workspace, "t", Scalars()).fill(IDS, reader, scores)
    dataset = open_table(workspace, "t")
    dataset.tags.create("one", dataset.version)
    assert has_tag(workspace, "t", "one")
    assert not has_tag(workspace, "t", "two")
    for manifest in Path(dataset.uri).glob("_versions/*.manifest"):
        manifest.unlink()
    assert not has_tag(workspace, "t", "one")


@pytest.mark.parametrize("name", ["zoë", "50 % #1", "a?b=c", "d'or"])
def test_a_home_of_any_name_is_the_only_folder_that_is_written(tmp_path: Path, name: str):
    workspace = Workspace(tmp_path / name)
    table = KeyedTable(workspace, "lengths", Scalars())
    table.fill(IDS[:2], lambda at: at, lambda at: at.astype(np.float32), unit_rows=1)
    for version in (1, 2, 1):
        set_tag(workspace, "lengths", "kept", version)
        assert table_tags(workspace, "lengths") == {"kept": version}
        assert has_tag(workspace, "lengths", "kept")
    clean_table(workspace, "lengths", lambda: ["kept"], dry_run=False)
    assert table_tags(workspace, "lengths") == {}
    assert [path.name for path in tmp_path.iterdir()] == [name]
