"""Archives as programs make them."""

import gzip
import io
import subprocess
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import zstandard

Content = Mapping[str, bytes | None]
"""Files by name; None for a directory."""


def tar(content: Content, *, format: int = tarfile.PAX_FORMAT) -> bytes:  # noqa: A002 - tarfile's
    return tar_of([tar_member(name, data) for name, data in content.items()], format=format)


def tar_member(
    name: str, data: bytes | None = b"", *, kind: bytes | None = None, link: str = ""
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type = kind or (tarfile.DIRTYPE if data is None else tarfile.REGTYPE)
    info.size, info.linkname = len(data or b""), link
    return info, data or b""


def tar_of(
    members: Iterable[tuple[tarfile.TarInfo, bytes]],
    *,
    format: int = tarfile.PAX_FORMAT,  # noqa: A002
) -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w", format=format) as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return written.getvalue()


def tar_gz(content: Content) -> bytes:
    return gzip.compress(tar(content), 1)


def tar_zst(content: Content) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(tar(content))


class _Pipe(io.RawIOBase):
    """Takes bytes without seeking, so that sizes follow their members."""

    def __init__(self) -> None:
        self.written = io.BytesIO()

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        return self.written.write(data)  # type: ignore[arg-type]


def zipped(
    content: Content,
    *,
    method: int = zipfile.ZIP_DEFLATED,
    piped: bool = False,
    large: bool = False,
) -> bytes:
    """A zip; `piped`: with sizes behind the members, `large`: with room for 64 bits."""
    target = _Pipe() if piped else io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as archive:
        for name, data in content.items():
            info = zipfile.ZipInfo(name if data is not None else name.rstrip("/") + "/")
            info.compress_type = method if data is not None else zipfile.ZIP_STORED
            with archive.open(info, "w", force_zip64=large) as member:
                member.write(data or b"")
    return target.written.getvalue() if isinstance(target, _Pipe) else target.getvalue()


def zip_with_mode(name: str, mode: int) -> bytes:
    """A zip that says of its second member that it is of this kind (`stat.S_IFLNK`)."""
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        archive.writestr("first", b"1")
        info = zipfile.ZipInfo(name)
        info.create_system, info.external_attr = 3, (mode | 0o777) << 16
        archive.writestr(info, b"/etc/passwd")
    return written.getvalue()


def packed(command: list[str], folder: Path, content: Content) -> bytes:
    """What a program packs of a folder with these files, into a pipe or a file `made.zip`."""
    for name, data in content.items():
        path = folder / name
        (path if data is None else path.parent).mkdir(parents=True, exist_ok=True)
        if data is not None:
            path.write_bytes(data)
    written = subprocess.run(command, cwd=folder, check=True, capture_output=True).stdout
    return written or (folder / "made.zip").read_bytes()


MAKERS: Mapping[str, Callable[[Content], bytes]] = {
    "pax": tar,
    "gnu": lambda content: tar(content, format=tarfile.GNU_FORMAT),
    "gzip": tar_gz,
    "zstd": tar_zst,
    "zip": zipped,
    "stored zip": lambda content: zipped(content, method=zipfile.ZIP_STORED),
    "piped zip": lambda content: zipped(content, piped=True),
    "zip64": lambda content: zipped(content, large=True),
    "piped zip64": lambda content: zipped(content, piped=True, large=True),
}
