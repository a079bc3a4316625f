"""Declared tables: what a Parquet, JSON Lines or manifest file holds, and the SQL view over all such files.

The packages that write a table declare it next to the code that writes it. `storage.views` builds a DuckDB view from
each declaration. A file that cannot be read is left out of its view and reported; the other files stay readable.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from stella_assets.storage.artefacts import MANIFEST, finished, linked
from stella_assets.storage.checked import CheckedFiles
from stella_assets.storage.lines import append_lines
from stella_assets.storage.workspace import Workspace

# Small enough that a group of long texts fits in memory, large enough that its statistics cost little.
ROW_GROUP = 65_536
TEXT, INT, REAL, FLAG, TIME = pa.string(), pa.int64(), pa.float64(), pa.bool_(), pa.timestamp("us")
SQL_TYPES = {TEXT: "VARCHAR", INT: "BIGINT", REAL: "DOUBLE", FLAG: "BOOLEAN", TIME: "TIMESTAMP"}

MANIFEST_COLUMNS = {
    "identity": "JSON",
    "key": "VARCHAR",
    "digest": "VARCHAR",
    "run_info": "JSON",
    "about": "JSON",  # the name of `run_info` in older manifests
    "metrics": "JSON",
    "facts": "JSON",  # the name of `metrics` in older manifests
}


def write_table(path: Path, schema: pa.Schema, rows: Iterable[Mapping[str, Any]] | pa.Table) -> None:
    """Write rows as a Parquet file of exactly this schema, in row groups that can be read one at a time."""
    table = rows.cast(schema) if isinstance(rows, pa.Table) else pa.Table.from_pylist(list(rows), schema=schema)
    pq.write_table(table, path, compression="zstd", row_group_size=ROW_GROUP)


@dataclass(frozen=True)
class ViewFiles:
    """The files behind views.

    Attributes:
        read: Those that a view reads.
        unreadable: Those that cannot be read, and are not part of any view.
    """

    read: list[Path] = field(default_factory=list)
    unreadable: list[Path] = field(default_factory=list)


class View(Protocol):
    """A declared table, as `storage.views` uses it."""

    @property
    def name(self) -> str:
        """The view's name."""

    def select(self, workspace: Workspace, found: ViewFiles) -> str:
        """The SELECT that the view stands for; the files that it reads, or cannot read, are added to `found`."""


@dataclass(frozen=True)
class Table:
    """A Parquet file in the folders of some artefacts.

    Attributes:
        name: The view's name.
        assets: Which artefacts hold the file, e.g. `corpus` or `stage_*`; a glob, or `**` for any.
        file: The file's name in the artefact's folder.
        schema: Its columns. A file with other columns, e.g. of an older version, is not part of the view.
        history_input: Empty for a view over what each recipe has now, with the recipe's name in a first column. Else
            the view covers every artefact that was ever made, one per digest of this input, and its last column
            `current` says whether a recipe has it now.
    """

    name: str
    assets: str
    file: str
    schema: pa.Schema
    history_input: str = ""

    def write(self, folder: Path, rows: Iterable[Mapping[str, Any]] | pa.Table) -> None:
        """Write the file into an artefact's folder."""
        write_table(folder / self.file, self.schema, rows)

    def select(self, workspace: Workspace, found: ViewFiles) -> str:
        """The SELECT over all files of the table."""
        if self.history_input:
            return self._select_history(workspace, found)
        # Links, not artefacts: only what a recipe has now is part of the view.
        files = [link / self.file for link in linked(workspace, self.assets)]
        selects = [
            f"SELECT {quote(path.relative_to(workspace.root).parts[0])} AS recipe, * FROM {_parquet(path)}"
            for path in files
            if path.is_file() and self._is_readable(workspace, path, found)
        ]
        empty = f"SELECT NULL::VARCHAR AS recipe, {_nulls(self.schema)} WHERE false"
        return " UNION ALL BY NAME ".join(selects) or empty

    def _select_history(self, workspace: Workspace, found: ViewFiles) -> str:
        """One artefact per digest of the input: the one that a recipe links to, else the newest."""
        current = {link.resolve() for link in linked(workspace, self.assets)}
        manifests = [folder / MANIFEST for folder in finished(workspace, self.assets)]
        times = {path: _changed_at(path) for path in manifests}
        chosen: dict[str, Path] = {}
        # Ascending, because a later entry replaces an earlier one: linked artefacts win, then newer ones.
        for manifest in sorted(manifests, key=lambda path: (path.parent.resolve() in current, times[path])):
            file = manifest.with_name(self.file)
            if file.is_file() and self._is_readable(workspace, file, found):
                chosen[self._input_digest(manifest, found)] = file
        columns = ", ".join(f'"{name}"' for name in self.schema.names)
        selects = [
            f"SELECT {columns}, {file.parent.resolve() in current} AS current FROM {_parquet(file)}"
            for digest, file in sorted(chosen.items(), key=lambda item: item[1])
            if digest
        ]
        empty = f"SELECT {_nulls(self.schema)}, NULL::BOOLEAN AS current WHERE false"
        return " UNION ALL ".join(selects) or empty

    def _input_digest(self, manifest: Path, found: ViewFiles) -> str:
        """The digest of `history_input`; empty where the manifest does not say."""
        try:
            inputs = json.loads(manifest.read_text(encoding="utf-8"))["identity"]["inputs"]
            return str(inputs.get(self.history_input, ""))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            found.unreadable.append(manifest)
            return ""

    def _is_readable(self, workspace: Workspace, path: Path, found: ViewFiles) -> bool:
        # First whether it is as it was written: a damaged page fails only in a query, which cannot name the file.
        if _is_whole(workspace, path):
            return self._has_schema(path, found)
        found.unreadable.append(path)
        return False

    def _has_schema(self, path: Path, found: ViewFiles) -> bool:
        try:
            # Names only: one file with other columns would make the whole view fail.
            fits = bool(pq.read_schema(path).names == self.schema.names)
        except (pa.ArrowException, OSError, ValueError):
            found.unreadable.append(path)
            return False
        if fits:
            found.read.append(path)
        return fits


@dataclass(frozen=True)
class LineTable:
    """JSON Lines in a folder of the workspace, one file per run or recipe.

    Attributes:
        name: The view's name.
        folder: The folder's name in the workspace.
        schema: The keys of a line.
    """

    name: str
    folder: str
    schema: pa.Schema

    def append(self, workspace: Workspace, stem: str, row: Mapping[str, Any]) -> None:
        """Append a line to the file `<stem>.jsonl`; see `append_lines`."""
        line = {name: row.get(name) for name in self.schema.names}
        append_lines(workspace.root / self.folder / f"{stem}.jsonl", [line])

    def select(self, workspace: Workspace, found: ViewFiles) -> str:
        """The SELECT over all files of the folder; a file with a line that is not JSON is left out."""
        files = [path for path in sorted((workspace.root / self.folder).glob("*.jsonl")) if _lines(path, found)]
        if not files:
            return f"SELECT {_nulls(self.schema)} WHERE false"
        columns = {column.name: SQL_TYPES[column.type] for column in self.schema}
        return f"SELECT * FROM {_json(files, columns, 'newline_delimited')}"


@dataclass(frozen=True)
class ManifestTable:
    """The manifests of some artefacts, one row per artefact.

    Attributes:
        name: The view's name.
        assets: Which artefacts; a glob.
        columns: Name and SQL expression of each column, over `identity`, `key`, `digest`, `run_info` and `metrics`.
        mark_current: Whether a last column `current` says that a recipe has the artefact now.
    """

    name: str
    assets: str
    columns: Mapping[str, str] = field(default_factory=dict)
    mark_current: bool = False

    def select(self, workspace: Workspace, found: ViewFiles) -> str:
        """The SELECT over all manifests; one that is not JSON is left out."""
        # `read_json` would refuse all files because of one that is empty or cut short.
        manifests = [folder / MANIFEST for folder in finished(workspace, self.assets)]
        files = [path for path in manifests if _json_object(path, found)]
        columns = [f'{expression} AS "{name}"' for name, expression in self.columns.items()]
        if self.mark_current:
            # Sorted, as the text of the SELECT decides whether the views are written again.
            keys = sorted({link.resolve().name for link in linked(workspace, self.assets)})
            columns.append(f"key IN ({', '.join(map(quote, keys)) or quote('')}) AS current")
        if files:
            source = _json(files, MANIFEST_COLUMNS, "auto")
        else:
            nothing = ", ".join(f"NULL::{kind} AS {name}" for name, kind in MANIFEST_COLUMNS.items())
            source = f"(SELECT {nothing} WHERE false)"
        renamed = "identity, key, digest, coalesce(run_info, about) AS run_info, coalesce(metrics, facts) AS metrics"
        return f"SELECT {', '.join(columns)} FROM (SELECT {renamed} FROM {source})"


def _is_whole(workspace: Workspace, path: Path) -> bool:
    """Whether a file of an artefact has the digest that its manifest states, if it states one."""
    folder = path.parent.resolve()
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        digest = {**manifest.get("outputs", {}), **manifest.get("file_digests", {})}.get(path.name)
        name = folder.relative_to(workspace.artefacts.resolve()).as_posix()
    except (OSError, ValueError, TypeError, AttributeError):
        return True  # the manifest is damaged, or this is not an artefact; the file is checked by itself
    return digest is None or not CheckedFiles(workspace, f"artefacts/{name}", folder).wrong({path.name: digest})


def _json_object(path: Path, found: ViewFiles) -> bool:
    try:
        if isinstance(json.loads(path.read_bytes()), dict):
            found.read.append(path)
            return True
    except (OSError, ValueError):
        pass
    found.unreadable.append(path)
    return False


def _lines(path: Path, found: ViewFiles) -> bool:
    try:
        # A last line without its end is being written, or was cut short by a kill; DuckDB would refuse the file.
        if all(isinstance(json.loads(line), dict) for line in path.read_bytes().splitlines()):
            found.read.append(path)
            return True
    except (OSError, ValueError):
        pass
    found.unreadable.append(path)
    return False


def _changed_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # it was removed meanwhile
        return 0.0


def quote(text: str) -> str:
    """A string literal of SQL."""
    return "'" + text.replace("'", "''") + "'"


def pattern(path: Path) -> str:
    """A pattern that matches a file alone; DuckDB reads paths as patterns."""
    # A pattern of one character between brackets matches that character only: `*` becomes `[*]`.
    return re.sub(r"([*?\[])", r"[\1]", str(path))


def _parquet(path: Path) -> str:
    return f"read_parquet({quote(pattern(path))})"


def _json(files: Iterable[Path], columns: Mapping[str, str], form: str) -> str:
    listed = ", ".join(quote(pattern(path)) for path in files)
    typed = ", ".join(f"{name}: '{kind}'" for name, kind in columns.items())
    return f"read_json([{listed}], columns={{{typed}}}, format='{form}')"


def _nulls(schema: pa.Schema) -> str:
    return ", ".join(f'NULL::{SQL_TYPES[column.type]} AS "{column.name}"' for column in schema)
