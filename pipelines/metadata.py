"""What the UI shows of an artefact: figures, pictures and tables as Dagster's metadata."""

from __future__ import annotations

from typing import Any

import dagster as dg

from stella_assets.core.markup import markdown_table, markdown_text
from stella_assets.core.present import Markdown, Picture, Rows, Schema, Shown, data_uri
from stella_assets.core.step import Artefact, Presentation


def artefact_metadata(artefact: Artefact, presentation: Presentation) -> dict[str, Any]:
    """What the step shows of its artefact, and what is known of every artefact."""
    shown = {
        # Dagster's tab of columns shows the schema under this name.
        "dagster/column_schema" if isinstance(value, Schema) else name: to_metadata(value)
        for name, value in presentation.show(artefact).items()
    }
    return {**shown, **common_metadata(artefact)}


def to_metadata(value: Shown) -> Any:
    """One value of `core.present` as Dagster's metadata.

    Args:
        value: A picture, table, text, schema, figure or path.
    """
    match value:
        case Picture(png, alt):
            return dg.MetadataValue.md(
                f"![{markdown_text(' '.join(alt.split()))}]({data_uri(png)})"
            )  # the UI draws Markdown pictures
        case Rows(rows):
            return dg.MetadataValue.md(_table(rows))
        case Markdown(text):
            return dg.MetadataValue.md(text)
        case Schema(columns):
            return dg.TableSchema([dg.TableColumn(name, kind) for name, kind in columns])
        case int() | float() | str():
            return value
        case path:
            return dg.MetadataValue.path(str(path))


def _table(rows: Any) -> str:
    if not rows:
        return "none"
    return markdown_table(list(rows[0]), [list(row.values()) for row in rows], figures=False)


def common_metadata(artefact: Artefact) -> dict[str, Any]:
    """What is known of every artefact, from its manifest."""
    manifest = artefact.manifest
    # Dagster plots numbers over time; nested metrics stay in the manifest.
    plain = {name: value for name, value in manifest.metrics.items() if isinstance(value, int | float | str)}
    rows = manifest.metrics.get("texts") or manifest.metrics.get("rows")
    return {
        "folder": dg.MetadataValue.path(str(artefact.folder)),
        "digest": artefact.digest,
        "reused": artefact.reused,
        "made because": "; ".join(manifest.run_info.get("because", ())),
        "seconds": float(manifest.run_info["seconds"]),
        "peak_memory_mib": int(manifest.run_info["peak_memory_mib"]),
        "inputs": dg.MetadataValue.json(dict(manifest.identity.inputs)),
        # Dagster's UI shows the number of rows under this name.
        **({"dagster/row_count": int(rows)} if rows else {}),
        **plain,
    }
