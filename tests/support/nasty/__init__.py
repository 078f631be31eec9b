"""Requests of at most 64 KiB that take as much work as their kind can."""

from tests.support.nasty import archives, bodies, heads


def corpus(token: str) -> dict[str, bytes]:
    """Requests of the user whose token it is, by kind and what is awkward about them."""
    kinds = {
        "form": bodies.forms(token),
        "account": bodies.account_forms(token),
        "archive": archives.archives(token),
        "json": bodies.json(token),
        "target": heads.targets(token),
        "header": heads.headers(token),
        "resumable upload": heads.uploads(token),
        "token": heads.tokens(),
        "framing": heads.framing(token),
    }
    return {f"{kind}: {what}": made for kind, group in kinds.items() for what, made in group}
