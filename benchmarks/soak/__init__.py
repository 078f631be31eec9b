"""The whole cloud under load: users and workers, faults at random or none, and an audit."""
