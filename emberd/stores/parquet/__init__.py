"""Folders of Parquet files, or one file."""
