"""Refusals of resumable uploads. None of them knows HTTP."""


class UploadNotFound(Exception):
    """The user has no such upload."""


class UploadExpired(Exception):
    """The upload was there, but is no more."""


class UploadBusy(Exception):
    """Another request writes to the upload."""


class WrongOffset(Exception):
    """The next byte of the upload belongs somewhere else."""

    def __init__(self, offset: int) -> None:
        super().__init__(f"The next byte of the upload has the offset {offset}")


class WrongChecksum(Exception):
    """The bytes are not those of which the client sent a checksum."""


class OtherVersion(Exception):
    """The request is not one of the protocol's supported version."""


class BadRequest(Exception):
    """The protocol does not allow the request, or this service does not support it."""


class WrongContentType(Exception):
    """The body is not a portion of an upload."""
