"""The space check looks at the disk that will be written, whether its folder exists yet or not."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from stella_assets.storage.codecs import Scalars
from stella_assets.storage.database import open_table, table_names, table_uri
from stella_assets.storage.errors import DiskSpaceError, StoreError
from stella_assets.storage.keyed_table import KeyedTable
from stella_assets.storage.workspace import Workspace

MIB = 2**20


@pytest.fixture
def disks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Free bytes by the name of a folder below `tmp_path`, as if each were a disk of its own."""
    usage, free = shutil.disk_usage(tmp_path), {"small": 10 * MIB, "large": 1000 * MIB}
    for name in free:
        (tmp_path / name).mkdir()

    def disk_usage(path: Path) -> object:
        assert path.exists(), "the system cannot tell the free space of a folder that does not exist"
        return usage._replace(free=free[path.relative_to(tmp_path).parts[0]])

    monkeypatch.setattr(shutil, "disk_usage", disk_usage)
    return free


@pytest.mark.usefixtures("disks")
def test_the_space_for_checkpoints_and_for_vectors_is_checked_on_the_disk_of_each(tmp_path: Path):
    workspace = Workspace(tmp_path / "small" / "state", str(tmp_path / "large" / "vectors"))
    workspace.require_space(100 * MIB, "a teacher", workspace.vectors)
    with pytest.raises(DiskSpaceError, match=r"small/state: a stage needs about 100 MiB and 10 MiB are free") as caught:
        workspace.require_space(100 * MIB, "a stage", workspace.root)
    assert caught.value.path == str(workspace.root)
    with pytest.raises(DiskSpaceError, match="small/state"):
        workspace.require_space(100 * MIB, "a stage")
    swapped = Workspace(tmp_path / "large" / "state", str(tmp_path / "small" / "vectors"))
    swapped.require_space(100 * MIB, "a stage")
    with pytest.raises(DiskSpaceError, match="small/vectors: a teacher needs"):
        swapped.require_space(100 * MIB, "a teacher", swapped.vectors)


@pytest.mark.usefixtures("disks")
def test_with_vectors_in_an_object_store_the_local_disk_is_still_checked(tmp_path: Path):
    workspace = Workspace(tmp_path / "small" / "state", "s3://bucket/vectors")
    workspace.require_space(100 * MIB, "a teacher", workspace.vectors)
    with pytest.raises(DiskSpaceError, match="a stage"):
        workspace.require_space(100 * MIB, "a stage")


@pytest.mark.usefixtures("disks")
def test_a_reserve_of_a_tenth_is_needed(tmp_path: Path):
    workspace = Workspace(tmp_path / "small")
    workspace.require_space(9 * MIB, "a stage")
    with pytest.raises(DiskSpaceError):
        workspace.require_space(10 * MIB, "a stage")


def test_quick_commands_on_a_local_store_import_no_database(workspace: Workspace):
    """Importing lance takes half a second and lancedb more than one."""
    table = KeyedTable(workspace, "t", Scalars())
    ids = [f"{number:032x}" for number in range(5)]
    code = f"""
import sys
from pathlib import Path
from stella_assets.storage.database import count_rows, has_tag, open_table, table_names
from stella_assets.storage.workspace import Workspace
workspace = Workspace(Path({str(workspace.root)!r}))
assert open_table(workspace, "nothing") is None
print(table_names(workspace), count_rows(workspace, "t"), has_tag(workspace, "t", "one"))
print(sorted({{"lance", "lancedb", "duckdb", "polars"}} & set(sys.modules)))
"""

    def ask() -> str:
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert ask() == "[] 0 False\n[]\n"
    table.fill(ids, lambda at: at, lambda at: at.astype(np.float32))
    assert ask() == "['t'] 5 False\n[]\n"
    open_table(workspace, "t").delete(f"id = '{ids[0]}'")
    assert ask() == "['t'] 4 False\n['lance']\n"  # counted once for each version
    assert ask() == "['t'] 4 False\n[]\n"


def test_a_table_is_found_whole_without_lance_also_after_its_earlier_versions_are_removed(workspace: Workspace):
    table = KeyedTable(workspace, "t", Scalars())
    code = f"""
import sys
from pathlib import Path
from stella_assets.storage.table_files import require_whole
from stella_assets.storage.workspace import Workspace
require_whole(Workspace(Path({str(workspace.root)!r})), "t")
print("lance" in sys.modules)
"""

    def needs_lance() -> bool:
        return (
            subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "True\n"
        )

    for last in (5, 10):
        ids = [f"{number:032x}" for number in range(last)]
        table.fill(ids, lambda at: at, lambda at: at.astype(np.float32))
        assert needs_lance()  # once for each version
        assert not needs_lance()
    earlier = max(Path(table_uri(workspace, "t"), "_versions").glob("*.manifest"))  # names count down
    earlier.unlink()  # as garbage collection does
    assert not needs_lance()


@pytest.mark.parametrize("address", ["https://store.example/x", "nosuch://bucket/x", "az://a:b@c/x", "db://mine"])
def test_an_address_that_no_object_store_has_is_not_called_damaged(address: str, tmp_path: Path):
    with pytest.raises(StoreError, match="is not an address of an object store"):
        table_names(Workspace(tmp_path, address))
