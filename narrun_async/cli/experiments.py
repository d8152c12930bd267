"""`narrun list`, `show`, `status` and `export`."""
