"""The same load by `wrk`, where it is installed and asked for; only for one repeated request."""

import re
import shutil
import subprocess

from benchmarks.load import Outcome, Plan, UnexpectedAnswer
from benchmarks.messages import COUNTER

_COUNT = re.compile(r"^\s*(\d+) requests in ([\d.]+)(ms|s|m)\b", re.MULTILINE)
_WRONG = re.compile(r"Non-2xx or 3xx responses: (\d+)|Socket errors: (.+)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0}


def can_drive(plan: Plan) -> bool:
    """Whether `wrk` is there and can send this: one GET, as fast as it is answered."""
    return (
        shutil.which("wrk") is not None
        and len(plan.requests) == 1
        and plan.requests[0].startswith(b"GET ")
        and COUNTER not in plan.requests[0]
        and plan.rate is None
        and not plan.keep
    )


def drive(plan: Plan) -> Outcome:
    """Send the load. Raises `UnexpectedAnswer` unless every answer was a success."""
    head, *lines = plan.requests[0].decode().partition("\r\n\r\n")[0].split("\r\n")
    headers = [option for line in lines for option in ("-H", line)]
    command = ["wrk", "-t1", f"-c{plan.connections}", f"-d{max(1, round(plan.seconds))}s"]
    url = f"http://{plan.host}:{plan.port}{head.split()[1]}"
    done = subprocess.run([*command, *headers, url], capture_output=True, text=True, check=True)
    return parse(done.stdout)


def parse(text: str) -> Outcome:
    """Read what `wrk` printed."""
    if wrong := _WRONG.search(text):
        raise UnexpectedAnswer(wrong[0])
    found = _COUNT.search(text)
    if found is None:
        raise UnexpectedAnswer(f"wrk printed no result: {text}")
    return Outcome(count=int(found[1]), seconds=float(found[2]) * _SECONDS[found[3]])
