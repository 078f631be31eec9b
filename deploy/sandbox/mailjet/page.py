"""The pages of mails and of messages to webhooks, which refresh themselves.

HTML parts are shown in a sandboxed frame.
"""

import time
from collections.abc import Sequence
from html import escape
from typing import Final

from deploy.sandbox.mailjet.store import Mail

_SHOWN: Final = 200

_SCRIPT: Final = """
setInterval(async () => {
  const answer = await fetch(location.href).catch(() => null);
  if (!answer?.ok) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  document.title = fresh.title;
  for (const part of ["header", "nav", "main"]) {
    const [old, now] = [document, fresh].map((page) => page.querySelector(part));
    if (old && old.innerHTML !== now.innerHTML) old.innerHTML = now.innerHTML;
  }
}, 2000);
"""

_STYLE: Final = """
:root { color-scheme: light dark; --line: #d7dce3; --soft: #f4f6f9; --ink: #1c2430;
  --quiet: #667085; --accent: #2456c5; --page: #fff; }
@media (prefers-color-scheme: dark) { :root { --line: #333c4a; --soft: #1d2430; --ink: #e6eaf0;
  --quiet: #98a2b3; --accent: #8ab0ff; --page: #141a23; } }
* { box-sizing: border-box; }
body { margin: 0; font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page);
  display: grid; grid-template: auto 1fr / minmax(15rem, 24rem) 1fr; min-height: 100vh; }
header { grid-column: 1 / -1; padding: .8rem 1.2rem; border-bottom: 1px solid var(--line); }
header h1 { font-size: 1.1rem; margin: 0; display: inline; }
header span, header a { color: var(--quiet); margin-left: .8rem; }
nav { border-right: 1px solid var(--line); overflow: auto; max-height: calc(100vh - 3.3rem); }
nav a { display: block; padding: .65rem 1.2rem; border-bottom: 1px solid var(--line);
  color: inherit; text-decoration: none; border-left: 3px solid transparent; }
nav a:hover, nav a[aria-current] { background: var(--soft); }
nav a[aria-current] { border-left-color: var(--accent); }
nav b { display: block; font-weight: 600; overflow-wrap: anywhere; }
nav small, dl { color: var(--quiet); }
nav small { display: flex; justify-content: space-between; gap: 1rem; }
main { padding: 1.2rem 1.6rem; min-width: 0; }
main.wide { grid-column: 1 / -1; }
main h2 { margin: 0 0 .6rem; font-size: 1.3rem; overflow-wrap: anywhere; }
main h3 { margin: 1.4rem 0 .4rem; font-size: .85rem; color: var(--quiet);
  text-transform: uppercase; letter-spacing: .05em; }
dl { display: grid; grid-template-columns: auto 1fr; gap: .1rem .8rem; margin: 0; }
dd { margin: 0; color: var(--ink); overflow-wrap: anywhere; }
pre { margin: 0; padding: 1rem; background: var(--soft); border-radius: 6px;
  white-space: pre-wrap; overflow-wrap: anywhere; font-size: .85rem; }
iframe { width: 100%; height: 26rem; border: 1px solid var(--line); border-radius: 6px;
  background: #fff; color-scheme: light; }
.none { color: var(--quiet); padding: 2rem 1.2rem; }
@media (max-width: 45rem) { body { display: block; } nav { border: 0; max-height: 40vh; } }
"""


def inbox(mails: Sequence[Mail], chosen: Mail | None, nonce: str) -> str:
    """The whole page; `mails` newest first, of which the first is shown unless one is `chosen`.

    `nonce` is that of the page's content security policy.
    """
    shown = chosen or (mails[0] if mails else None)
    links = "".join(_link(mail, current=mail is shown) for mail in mails[:_SHOWN])
    detail = _detail(shown) if shown else '<p class="none">Mails appear here as they are sent.</p>'
    many = "1 mail" if len(mails) == 1 else f"{len(mails)} mails"
    return _page(
        many,
        f"<h1>Sandbox mails</h1><span>{many}, none of them left this machine</span>"
        '<a href="/webhooks">Webhooks</a>',
        f"<nav>{links or '<p class=none>No mails yet.</p>'}</nav><main>{detail}</main>",
        nonce,
    )


def webhooks(messages: str, nonce: str) -> str:
    """The whole page of the receiver's messages, which are HTML already."""
    header = '<h1>Sandbox webhooks</h1><span>what came to /webhook</span><a href="/">Mails</a>'
    return _page("Webhooks", header, f'<main class="wide">{messages}</main>', nonce)


def _page(title: str, header: str, content: str, nonce: str) -> str:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title} - sandbox</title><style>{_STYLE}</style></head><body>"
        f"<header>{header}</header>{content}"
        f'<script nonce="{nonce}">{_SCRIPT}</script></body></html>'
    )


def _receivers(mail: Mail) -> str:
    return escape(", ".join(str(to.get("Email", "")) for to in mail["to"]))


def _time(mail: Mail, form: str) -> str:
    return time.strftime(form, time.localtime(mail["sent_at"]))


def _link(mail: Mail, *, current: bool) -> str:
    mark = ' aria-current="page"' if current else ""
    return (
        f'<a href="/mails/{mail["id"]}"{mark}><b>{escape(mail["subject"]) or "(no subject)"}</b>'
        f"<small><span>{_receivers(mail)}</span><span>{_time(mail, '%H:%M:%S')}</span></small></a>"
    )


def _detail(mail: Mail) -> str:
    sender = escape(str(mail["from"].get("Email", "")))
    parts = [
        f"<h2>{escape(mail['subject']) or '(no subject)'}</h2><dl>",
        f"<dt>From</dt><dd>{sender}</dd><dt>To</dt><dd>{_receivers(mail)}</dd>",
        f"<dt>Sent</dt><dd>{_time(mail, '%Y-%m-%d %H:%M:%S %Z')}</dd>",
        f"<dt>CustomID</dt><dd>{escape(mail['custom_id']) or '(none)'}</dd></dl>",
    ]
    if mail["html"]:
        # sandbox="" lets the mail run nothing and reach nothing
        frame = f'<iframe sandbox="" title="HTML part" srcdoc="{escape(mail["html"])}"></iframe>'
        parts.append(f"<h3>HTML</h3>{frame}")
    if mail["text"]:
        parts.append(f"<h3>Text</h3><pre>{escape(mail['text'])}</pre>")
    return "".join(parts)
