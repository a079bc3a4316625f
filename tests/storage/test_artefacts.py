"""An artefact is for everybody whom the umask lets read it, whichever library wrote its files."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from stella_assets.storage.artefacts import MANIFEST, ArtefactStore
from stella_assets.storage.workspace import Workspace


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path: Path) -> str:
    return oct(path.stat().st_mode & 0o777)


@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize(("mask", "file", "folder"), [(0o022, "0o644", "0o755"), (0o027, "0o640", "0o750")])
def test_the_umask_decides_who_may_read_an_artefact(workspace: Workspace, mask: int, file: str, folder: str):
    os.umask(mask)
    store = ArtefactStore(workspace)
    draft = store.draft("model", "key")
    (draft / "head").mkdir(mode=0o700)
    save_file({"weight": np.zeros(2)}, draft / "head" / "model.safetensors")
    (draft / MANIFEST).write_text("{}")
    made = store.commit(draft, "model", "key")
    assert {mode(made / "head" / "model.safetensors"), mode(made / MANIFEST)} == {file}
    assert {mode(made), mode(made / "head")} == {folder}


@pytest.mark.usefixtures("umask")
def test_what_a_link_of_an_artefact_leads_to_keeps_its_permissions(workspace: Workspace, tmp_path: Path):
    private = tmp_path / "private"
    private.write_text("mine")
    private.chmod(0o600)
    store = ArtefactStore(workspace)
    draft = store.draft("model", "key")
    (draft / "link").symlink_to(private)
    (draft / MANIFEST).write_text("{}")
    assert mode(store.commit(draft, "model", "key") / MANIFEST) == "0o644"
    assert mode(private) == "0o600"
