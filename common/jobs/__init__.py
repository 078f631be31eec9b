"""Jobs: what their statuses mean, and the only code that changes their rows."""
