"""Requests about a job's results, and what `/openapi.json` shows of the answers."""

from typing import Final

from gateway.http.fields import Flag, RequestSchema, Whole

MOST_LINES: Final = 10_000

FILES_EXAMPLE: Final = [
    {"path": "artifact/train_1/model.pt", "type": "file", "size": "1.2 MB"},
    {"path": "log/train_1/log.txt", "type": "file", "size": "19 Bytes"},
]
ARCHIVE_RESPONSES: Final = {
    "200": {
        "description": "A zip with `output/…`, `log/…` and `artifact/…`, as an attachment.",
        "content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}},
    }
}
LOG_RESPONSES: Final = {
    "200": {
        "description": "The lines, in UTF-8; empty where there is nothing yet.",
        "content": {
            "text/plain": {
                "schema": {"type": "string"},
                "example": "==> prepare.log <==\nready\n\n==> train.log <==\nepoch 1\nepoch 2\n",
            }
        },
    }
}


class FilesSchema(RequestSchema):
    """How to show a job's files."""

    details = Flag(
        load_default=False, metadata={"description": "Add `bytes`, `modified` and `etag`."}
    )


class LogSchema(RequestSchema):
    """How much to show of a job's log."""

    lines = Whole(
        load_default=200,
        least=1,
        most=MOST_LINES,
        metadata={"description": "How many of each file's last lines."},
    )
