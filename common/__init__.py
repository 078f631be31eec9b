"""What at least two of the three services need, one named concept per module."""
