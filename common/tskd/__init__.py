"""Task-specific knowledge distillation for medical image segmentation: code shared by the three bundles.

Submodules load on first use, so a bundle config needs one import (`$import tskd`) and pays for no more than it uses.
"""

from importlib import import_module, util
from types import ModuleType

__version__ = "0.1.0"


def __getattr__(name: str) -> ModuleType:
    if not name.startswith("_") and util.find_spec(f"{__name__}.{name}") is not None:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
