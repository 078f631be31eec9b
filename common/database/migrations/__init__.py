"""Alembic migrations; one set for PostgreSQL and SQLite. `python -m common.migrate` runs them."""
