"""What operators see: logs, probes and metrics, without secrets."""
