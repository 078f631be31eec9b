"""A soak: everything runs, everything is killed now and then, and nothing may be lost."""
