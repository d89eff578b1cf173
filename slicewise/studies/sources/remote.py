"""A file on a server, whatever the server speaks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

from slicewise.studies.sources.base import RemoteFile


class Remote(ABC):
    """A file on a server.

    Args:
        file: As the server lists it.
        label: What messages call it; without signature or password.
        ranged: Whether the server gives parts of it.
    """

    def __init__(self, file: RemoteFile, label: str, *, ranged: bool = True) -> None:
        self.file = file
        self.label = label
        self.ranged = ranged

    @abstractmethod
    def read(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield the bytes from ``start`` until before ``stop``.

        Raises:
            TransientError: Another try may help.
            ChangedError: The content is not the listed one any more.
            SourceError: It will not be given.
        """

    @abstractmethod
    def again(self) -> Remote:
        """The same file as the server lists it now.

        Raises:
            SourceError: It is gone, or will not be given.
        """

    @property
    def md5(self) -> str | None:
        """The content's MD5, where the server has told it."""
        return None
