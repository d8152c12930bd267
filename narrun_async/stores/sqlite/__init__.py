"""The Store over SQLite: WAL, one read-write connection, readers beside it."""
