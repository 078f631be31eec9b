"""The page behind the link that stops mails: opening it changes nothing, since scanners do so."""

from typing import Final

HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",  # the address is a secret of the mail's reader
    "Cache-Control": "no-store",
}

_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>DECODE OpenCloud: mails</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 32rem; margin: 15vh auto;
  padding: 0 1rem; }}
button {{ font: inherit; padding: .5rem 1rem; }}
</style>
</head>
<body>
{content}
</body>
</html>
"""

ASK: Final = _PAGE.format(
    content="""<h1>Stop mails about your jobs?</h1>
<p>Jobs whose submission asks for mails are not affected.</p>
<form method="post"><button>Stop the mails</button></form>"""
)
DONE: Final = _PAGE.format(
    content="""<h1>You get no more mails about your jobs</h1>
<p><code>PUT /user/notifications {"mail": "all"}</code> brings them back.</p>"""
)
