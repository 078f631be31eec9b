"""The whole cloud at a steady load without faults: what grows where nothing may."""
