"""Jobs: submitted, described, listed, deleted."""
