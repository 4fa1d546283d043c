"""What is kept: tables, store, versions of what was learned, export."""
