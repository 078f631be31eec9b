"""Users' files on a local file system."""
