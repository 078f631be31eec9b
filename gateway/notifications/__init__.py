"""Which mails users get, and how they stop them."""
