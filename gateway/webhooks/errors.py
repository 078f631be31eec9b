"""What can go wrong with webhooks. None of these knows HTTP."""


class WebhookNotFound(Exception):
    """The user has no such webhook."""


class DeliveryNotFound(Exception):
    """The webhook has no such delivery (any more)."""


class TooManyWebhooks(Exception):
    """The user has as many webhooks as one may have."""


class WebhookDisabled(Exception):
    """Nothing is delivered to the webhook."""
