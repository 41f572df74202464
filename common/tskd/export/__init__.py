"""Export of the student: a stand-alone MONAI bundle and other formats."""

from tskd.export.ship import ship_run, ship_student

__all__ = ["ship_run", "ship_student"]
