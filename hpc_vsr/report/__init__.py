"""One page, tables and JSON of one or more runs."""
