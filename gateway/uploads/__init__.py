"""`/uploads`: files that arrive in portions (tus 1.0.0), and prove that they are whole."""
