"""Export: the student as a stand-alone MONAI bundle."""

from tskd.export.ship import ship_run, ship_student

__all__ = ["ship_run", "ship_student"]
