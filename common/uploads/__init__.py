"""Uploads that any process can go on with: their state, and the last step to their files."""
