"""What users' files take of the storage, what they may take, and what changes it."""
