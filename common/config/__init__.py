"""Settings: from the environment, secrets and the application configuration to typed values."""
