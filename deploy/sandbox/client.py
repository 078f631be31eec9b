"""A client of the gateway, whose errors are sentences for the user."""

import json
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

from deploy.sandbox.event_stream import frames


class ClientError(Exception):
    """A call failed; the message is a sentence."""


class GatewayAwayError(ClientError):
    """There was no response, or a 5xx."""


class GatewayClient:
    """Calls to the gateway at `url`, as the user of `log_in`."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url.rstrip("/")
        self._headers: dict[str, str] = {}

    async def log_in(self, email: str, password: str) -> None:
        form = {"username": email, "password": password}
        answer = await self._call("POST", "/token", data=form)
        self._headers = {"Authorization": f"Bearer {answer['id_token']}"}

    async def upload(self, kind: str, folder: str, source: Path) -> None:
        """Request an upload link and follow it, which works on local storage and on S3 alike."""
        request = await self._call("POST", f"/files/{kind}/{folder}/url")
        form = aiohttp.FormData(quote_fields=False)  # whose percent signs nobody takes back
        for name, value in (request["data"] or {}).items():
            form.add_field(name, value)
        try:
            with source.open("rb") as file:
                form.add_field("file", file, filename=_form_encoded(source.name))
                async with self._session.request(
                    request["method"], request["url"], headers=request["headers"], data=form
                ) as response:
                    if response.status >= 400:
                        raise ClientError(f"the upload of {source} {await _why(response)}.")
        except OSError as error:
            raise ClientError(f"{source} could not be uploaded: {error}.") from error

    async def start_job(self, job: dict[str, Any]) -> dict[str, Any]:
        return dict(await self._call("POST", "/jobs", json=job))

    async def repeat(self, number: int, changes: dict[str, Any]) -> dict[str, Any]:
        return dict(await self._call("POST", f"/jobs/{number}/repeat", json=changes))

    async def job(self, number: int) -> dict[str, Any]:
        return dict(await self._call("GET", f"/jobs/{number}"))

    async def cancel(self, number: int, reason: str) -> dict[str, Any]:
        return dict(await self._call("POST", f"/jobs/{number}/cancel", json={"reason": reason}))

    async def events(self, number: int, *, after: int) -> AsyncGenerator[dict[str, Any]]:
        """A job's events later than `after`, as they happen.

        Raises `GatewayAwayError` where the stream ends, to be opened again after the last event.
        """
        url = f"{self._url}/jobs/events?job={number}&after={after}"
        try:
            async with self._session.get(url, headers=self._headers) as response:
                if response.status >= 400:
                    kind = GatewayAwayError if response.status >= 500 else ClientError
                    raise kind(f"the stream of events {await _why(response)}.")
                async for frame in frames(response):
                    if frame.get("event") == "job":
                        yield json.loads(frame["data"])
        except (aiohttp.ClientError, TimeoutError) as error:
            raise GatewayAwayError(
                f"the stream of events broke off ({type(error).__name__})."
            ) from error
        raise GatewayAwayError("the stream of events has ended.")

    async def download(self, path: str) -> AsyncIterator[bytes]:
        """The bytes of a file, or of the archive of a directory."""
        url = f"{self._url}/files/{path}/download"
        try:
            async with self._session.get(url, headers=self._headers) as response:
                if response.status >= 400:
                    raise ClientError(f"the download of {path} {await _why(response)}.")
                async for chunk in response.content.iter_chunked(1 << 18):
                    yield chunk
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ClientError(f"the download of {path} broke off: {error}.") from error

    async def _call(self, method: str, path: str, **body: Any) -> Any:
        try:
            async with self._session.request(
                method, self._url + path, headers=self._headers, **body
            ) as response:
                if response.status >= 400:
                    kind = GatewayAwayError if response.status >= 500 else ClientError
                    raise kind(f"{method} {path} {await _why(response)}.")
                return await response.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise GatewayAwayError(
                f"{self._url} did not answer ({type(error).__name__})."
            ) from error


def _form_encoded(name: str) -> str:
    """A name as browsers send it: https://html.spec.whatwg.org/#multipart-form-data."""
    return name.replace("\n", "%0A").replace("\r", "%0D").replace('"', "%22")


async def _why(response: aiohttp.ClientResponse) -> str:
    text = await response.text(errors="replace")
    try:
        detail = json.loads(text)["detail"]
    except (ValueError, KeyError, TypeError):
        detail = text[:200] or "nothing"
    if isinstance(detail, list):
        detail = "; ".join(f"{'.'.join(map(str, one['loc'][1:]))}: {one['msg']}" for one in detail)
    return f"was answered {response.status}: {detail}".rstrip(".")
