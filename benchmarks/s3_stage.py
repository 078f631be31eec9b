"""A second gateway, whose files are on S3: on one that keeps nothing, so that the gateway is what
takes the time."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

from benchmarks.messages import Caller
from benchmarks.processes import Child, running
from benchmarks.stage import Stage, service
from deploy.sandbox.aws import environment
from deploy.sandbox.ports import LOOPBACK, free_port

_BUCKET: Final = "bench"
_ROOT: Final = "user_data"


@dataclass(frozen=True, kw_only=True)
class S3Stage:
    """The gateway on S3, and the store itself."""

    gateway: Child
    user: Caller
    store: Caller
    store_pid: int
    tree: str

    def place(self, path: str) -> str:
        """Where the store has the user's file `path`: a target of requests to it."""
        return f"{self.tree}/{path}"


@contextmanager
def gateway_on_s3(stage: Stage) -> Iterator[S3Stage]:
    """Both run while in the context."""
    port, store_port = free_port(), free_port()
    endpoint = f"http://{LOOPBACK}:{store_port}"
    settings = {
        **stage.settings,
        **environment(endpoint),
        "FILESYSTEM": "s3",
        "S3_BUCKET": _BUCKET,
        "USER_DATA_ROOT_PATH": _ROOT,
        "PORT": str(port),
    }
    command = ("benchmarks.null_s3", "--port", str(store_port))
    with running(*command, settings={}, folder=stage.folder, name="null-s3") as store:
        store.wait_until(f"{endpoint}/{_BUCKET}")
        started, ready = service("gateway", settings, stage.folder)
        with started as gateway:
            gateway.wait_until(ready)
            yield S3Stage(
                gateway=gateway,
                user=replace(stage.user, port=port),
                store=Caller(host=LOOPBACK, port=store_port),
                store_pid=store.pid,
                tree=f"/{_BUCKET}/{_ROOT}/{stage.identity.user}",
            )
