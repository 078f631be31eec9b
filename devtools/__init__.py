"""What tests and benchmarks both need: databases, processes, waiting."""
