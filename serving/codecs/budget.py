"""How much one request may unpack to, counted before anything is unpacked."""

from __future__ import annotations

from slicewise.errors import TooLargeError
from slicewise.studies.pictures import MAX_PIXELS

# A study has some hundred slices; each item costs more than its pixels.
MAX_ITEMS = 1024


class Budget:
    """Pixels that a request may still use, over all its files and channels.

    Args:
        pixels: At the start.
    """

    def __init__(self, pixels: int = MAX_PIXELS) -> None:
        self._pixels = pixels
        self._left = pixels

    def take(self, pixels: int, what: str) -> None:
        """Use some.

        Args:
            pixels: How many.
            what: What they are for, for the message.

        Raises:
            TooLargeError: There are not as many left.
        """
        if pixels > self._left:
            limit = f"{self._pixels >> 20} megapixels" if self._pixels >> 20 else f"{self._pixels} pixels"
            raise TooLargeError(what, f"send at most {limit} in one request, all channels together")
        self._left -= pixels


def check_count(count: int, field: str) -> None:
    """Refuse more slices than a request may hold.

    Raises:
        TooLargeError: More than ``MAX_ITEMS``.
    """
    if count > MAX_ITEMS:
        raise TooLargeError(f"{field} has {count} slices", f"send at most {MAX_ITEMS} in one request")
