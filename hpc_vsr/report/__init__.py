"""Makes the report of one or more runs: a page, tables and JSON."""
