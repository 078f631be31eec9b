"""Jobs: their lifecycle, the only writer of their status (`updates`), mails, deletion, history."""
