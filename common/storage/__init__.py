"""Users' files: one protocol, one implementation per kind of storage."""
