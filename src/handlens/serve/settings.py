"""What a server allows, and how it says no.

Boundary: plain values; knows no web framework.
"""

from dataclasses import dataclass

from handlens.errors import HandlensError, SettingError


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """Limits and permissions of one server."""

    max_body_bytes: int = 32 * 2**20
    max_pixels: int = 40_000_000
    """Of one picture."""
    max_pictures: int = 16
    """Of one conversation."""
    max_tokens: int = 1024
    """Longest answer; a request that asks for more gets this many."""
    max_seconds: int = 120
    """From the arrival of a request to the end of its answer."""
    max_waiting: int = 32
    """Requests that wait for the one that is answered; further ones are refused with 429."""
    max_uploads: int = 64
    api_key: str = ""
    """Empty: everyone who reaches the port may ask."""
    allow_remote: bool = False
    """Fetch pictures from public http and https addresses."""
    allow_any_host: bool = False
    """Answer whatever name the client used for this machine; needed behind a proxy or on a network."""

    def __post_init__(self) -> None:
        for name in ("max_body_bytes", "max_pixels", "max_pictures", "max_tokens", "max_seconds", "max_waiting"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name} is {getattr(self, name)}; it must be at least 1")


class Refusal(HandlensError):
    """A request that is answered with an error; ``status`` is the HTTP status."""

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.param, self.code = status, param, code
        self.retry_after_s = 0
        """Seconds after which asking again makes sense; 0 says nothing."""

    def to_json(self) -> dict[str, object]:
        """Return the body that OpenAI clients understand."""
        kinds = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
        kind = kinds.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        message = str(self).encode("utf-8", "replace").decode()
        return {"error": {"message": message, "type": kind, "param": self.param, "code": self.code}}
