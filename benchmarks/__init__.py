"""The performance of the services, each figure beside a baseline from the same run: `make bench`.

Rates vary on a shared machine; the processor time per request, from `/proc`, varies far less. The
report has both. Nothing here passes or fails by time.
"""
