"""The HTTP machinery that every feature uses; it knows none of them."""
