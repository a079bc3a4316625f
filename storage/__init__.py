"""WHERE things are kept: artefacts on disk, teacher vectors in LanceDB, statistics in Parquet and DuckDB."""
