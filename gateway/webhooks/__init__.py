"""Users' webhooks: where changes of their jobs are announced."""
