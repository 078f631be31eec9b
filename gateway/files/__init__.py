"""Users' files: listed, uploaded, downloaded, renamed, deleted."""
