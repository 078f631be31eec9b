"""A user's files as answers: entries as JSON, directories as zips. Features share this."""
