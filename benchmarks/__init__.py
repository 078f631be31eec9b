"""How fast the services are, each figure beside a floor measured in the same run: `make bench`.

Requests per second are noisy on a shared machine; the processor time per request of the measured
process, from `/proc`, is far less so. Both are reported. Nothing here passes or fails by time.
"""
