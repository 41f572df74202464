"""How large a file may become when it is unpacked: a few bytes can say that they are a thousand gigabytes."""

from __future__ import annotations

import os

from tskd.errors import TskdError

KEY = "TSKD_MAX_GIB"  # environment variable, in gigabytes of 2^30 bytes
VOLUME, PICTURE = 16.0, 0.5  # of a NIfTI file; of a picture or one frame of DICOM


def max_bytes(default: float) -> int:
    """Return the limit in bytes: `default` gigabytes, or what the environment variable says.

    Raises:
        TskdError: a variable that is no positive number.
    """
    given = os.environ.get(KEY, "")
    try:
        limit = float(given) if given else default
    except ValueError:
        limit = 0.0
    if not 0 < limit < 2**20:
        raise TskdError(f"{KEY}: expected a number of gigabytes above 0, found {given!r}.")
    return int(limit * 2**30)


def refuse_larger(size: int, default: float, where: object) -> None:
    """Refuse a file that unpacks to `size` bytes, or more.

    Raises:
        TskdError: above the limit.
    """
    limit = max_bytes(default)
    if size > limit:
        raise TskdError(
            f"{where}: expected at most {limit / 2**30:.3g} GiB, found more when unpacked ({size / 2**30:.3g} GiB). "
            f"Copy the file again; if it is right, raise the limit with the environment variable {KEY}."
        )
