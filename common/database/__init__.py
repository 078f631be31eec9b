"""The database: connections, tables, schema, errors, and notifications between processes."""
