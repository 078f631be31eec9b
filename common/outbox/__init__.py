"""The transactional outbox: rows that describe calls to peers, claimed and settled by daemons."""
