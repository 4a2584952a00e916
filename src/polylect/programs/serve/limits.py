"""What a server takes, and how it says no."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Limits of a server, each a setting of the same name.

    Attributes:
        max_bytes: of the body of a request.
        max_upload: bytes of an adapter that is uploaded, packed and unpacked; 0 takes none.
        max_texts: in a request; lines count as texts where a text has several.
        queue: texts that may wait, of all requests together.
        timeout: seconds that a request may take, from its first byte to its answer.
        wait_ms: a free model begins when no text has come for so many milliseconds, or ten times
            as many after the first.
        window: texts among which those of similar length are looked for, in units of the rows of
            a batch.
    """

    max_bytes: int = 2**20
    max_upload: int = 0
    max_texts: int = 256
    queue: int = 2048
    timeout: float | int = 300
    wait_ms: float | int = 5
    window: int = 4

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_texts", "queue", "timeout", "window"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}.")
        for name in ("wait_ms", "max_upload"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}.")
        if self.queue < self.max_texts:
            raise ValueError(
                f"queue={self.queue} has no room for a request of max_texts={self.max_texts}."
            )


class Refusal(Exception):
    """A request is not answered: the status and the sentence that its sender gets."""

    def __init__(self, status: int, sentence: str, retry_after: int | None = None) -> None:
        super().__init__(sentence)
        self.status, self.retry_after = status, retry_after
