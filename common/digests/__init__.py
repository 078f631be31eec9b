"""SHA-256 of users' files, noted in the database for one version of each file."""
