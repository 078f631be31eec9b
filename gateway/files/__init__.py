"""Users' files: list, upload, download, rename, delete."""
