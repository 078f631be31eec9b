"""The floor for hand-overs: the dispatcher's own calls to the same peer, without a database.

`python -m benchmarks.handover_floor --url URL --count 4000`
"""

import argparse
import asyncio
from typing import Final

import uvloop

from benchmarks import seed
from benchmarks.identity import INTERNAL_KEY
from benchmarks.tool import print_sample
from common.outbox.peer_client import open_session
from dispatcher.worker_api import Verdict, WorkerApi, body_of

_CONCURRENCY: Final = 16
_TIMEOUT: Final = 30.0


async def forward(url: str, count: int) -> int:
    """Send so many submissions, as many at once as a dispatcher does; returns how many."""
    numbers = iter(range(1, count + 1))
    async with open_session("benchmark", connections=_CONCURRENCY) as session:
        peer = WorkerApi(session, url, INTERNAL_KEY, timeout=_TIMEOUT, status_path="")

        async def run() -> None:
            for number in numbers:
                answer = await peer.submit(body_of(seed.PAYLOAD, number), f"benchmark-{number}")
                if answer.verdict is not Verdict.TAKEN:
                    raise SystemExit(f"the stand-in peer did not take it: {answer}")

        await asyncio.gather(*(run() for _ in range(_CONCURRENCY)))
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--count", type=int, required=True)
    given = parser.parse_args()
    print_sample(lambda: uvloop.run(forward(given.url, given.count)))


if __name__ == "__main__":
    main()
