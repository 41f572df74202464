"""Export of the student: a stand-alone MONAI bundle and other formats.

Names load on first use: what says which model was shipped needs neither torch nor MONAI.
"""

from typing import TYPE_CHECKING

from tskd.lazy_names import lazy_names

if TYPE_CHECKING:
    from tskd.export.ship import ship_run, ship_student

__all__ = ["ship_run", "ship_student"]
__getattr__ = lazy_names(__name__, dict.fromkeys(__all__, "ship"))
