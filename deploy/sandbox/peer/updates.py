"""Status updates for the gateway, each sent once: only workers repeat theirs."""

import aiohttp


class GatewayUpdates:
    """`PUT {gateway}/_job_status`."""

    def __init__(self, session: aiohttp.ClientSession, gateway: str, key: str) -> None:
        self._session = session
        self._url = gateway.rstrip("/") + "/_job_status"
        self._headers = {"x-api-key": key}

    async def push(self, number: int, status: str, details: str | None) -> int | None:
        """The gateway's HTTP status, or None without a response."""
        body = {"job_id": number, "status": status, "runtime_details": details}
        try:
            async with self._session.put(
                self._url, json=body, headers=self._headers, allow_redirects=False
            ) as response:
                await response.read()
                return response.status
        except (aiohttp.ClientError, TimeoutError):
            return None
