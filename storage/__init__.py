"""WHERE things are kept: artefacts on disk, vectors in Lance tables, figures in Parquet with DuckDB views over them."""
