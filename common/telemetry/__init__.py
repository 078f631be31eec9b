"""What operators see: logs, probes, metrics; and what they never see."""
