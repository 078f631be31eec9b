"""The benchmarks, a module per part of the service, each registered with `@benchmark`."""
