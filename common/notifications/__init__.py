"""Which mails users get, how they stop them, and to which addresses none go."""
