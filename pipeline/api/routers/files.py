"""Files as answers, whole or in parts."""

from __future__ import annotations

from fastapi.responses import FileResponse
from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send

from pipeline.api.problems import Problem


class File(FileResponse):
    """A file. A Range that it does not have is refused with problem details, and not in plain text."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] in (400, 416):
                length = Headers(raw=message["headers"]).get("content-range")  # of the whole file; only 416 tells it
                more = {"content-range": length} if length else None
                raise Problem(message["status"], "the Range header asks for bytes that the file does not have", more)
            await send(message)

        await super().__call__(scope, receive, sending)
