"""What a user has in use, and may have."""
