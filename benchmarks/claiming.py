"""Claims and settles what is due, as fast as one dispatcher could; a process of its own.

`python -m benchmarks.claiming --url URL --seconds 3`
"""

import argparse
import time
from typing import Final

import uvloop

from benchmarks.database import driver_settings
from benchmarks.tool import print_sample
from common.database.engine import Database
from common.database.tables import handovers
from common.outbox.outbox import Outbox
from dispatcher.forward import Handover

_BATCH: Final = 16
_LEASE: Final = 35.0


async def claim(url: str, seconds: float) -> int:
    """Claim by batches and settle each as delivered; returns how many items that were."""
    database = Database(driver_settings(url, pool_size=1))
    outbox = Outbox(database, handovers, Handover, lease=_LEASE)
    done, ends = 0, time.monotonic() + seconds
    try:
        while time.monotonic() < ends:
            items = await outbox.claim(_BATCH)
            if not items:
                raise SystemExit("there was not enough to claim")
            await outbox.done(items)
            done += len(items)
    finally:
        await database.close()
    return done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--seconds", type=float, required=True)
    given = parser.parse_args()
    print_sample(lambda: uvloop.run(claim(given.url, given.seconds)))


if __name__ == "__main__":
    main()
