"""What the gateway and the notifier agree on about webhooks: addresses, and secrets at rest."""
