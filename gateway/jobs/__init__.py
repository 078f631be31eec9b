"""Jobs: submission, description, listing, deletion."""
