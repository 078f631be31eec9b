"""What is measured: one module per part of the service, registered in `benchmarks.catalogue`."""
