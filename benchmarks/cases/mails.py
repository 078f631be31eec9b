"""Mails to an instant Mailjet, in batches, beside one call for each."""

from collections.abc import Iterator

from benchmarks import seed
from benchmarks.baselines import mails as one_by_one
from benchmarks.environment import Environment
from benchmarks.isolation import measured_apart
from benchmarks.measure import wait_until
from benchmarks.registry import Scope, benchmark
from benchmarks.results import Baseline, Result, Sample
from devtools import proc


@benchmark("mails", Scope.POSTGRESQL)
def mails(env: Environment) -> Iterator[Result]:
    """mails sent per second by one notifier"""
    count = env.options.forwarded
    env.database.execute("DELETE FROM emails WHERE settled_at IS NULL")
    with env.notifier() as notifier:
        env.ask_standins("/arrivals", "DELETE")
        prefix, pids = f"mails_{env.history}", [notifier.pid]
        ids = seed.add_jobs(env.database, count, user="'other'", prefix=prefix)
        before = proc.cpu_seconds(pids)
        proc.reset_peak(pids)
        seed.add_mails(env.database, ids)
        env.database.execute("NOTIFY opencloud_emails")
        wait_until(
            lambda: env.ask_standins("/summary")["count"] >= count, f"{count} mails did not arrive"
        )
        unsettled = "SELECT count(*) FROM emails WHERE settled_at IS NULL"
        wait_until(lambda: not env.database.fetch(unsettled)[0][0], "mails were not settled")
        summary = env.ask_standins("/summary")
        sent = Sample(
            count=count - 1,  # from the first arrival to the last
            seconds=summary["last"] - summary["first"],
            cpu_seconds=proc.cpu_seconds(pids) - before,
        )
        peak = proc.peak_mib(pids)
    bare = measured_apart(one_by_one.send, env.standins_url, count)
    baselines = (Baseline("one call per mail, no database", bare.per_second()),)
    note = "written from the database and its templates, 50 to a request"
    group = f"Mails sent on {env.database.title}"
    yield Result(group, "by one notifier", sent.per_second(), baselines, peak, note)
