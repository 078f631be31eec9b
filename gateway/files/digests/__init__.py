"""SHA-256 of files: computed as they arrive, compared with what clients state, noted, found."""
