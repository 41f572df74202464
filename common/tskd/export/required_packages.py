"""Say in one line which packages a shipped bundle lacks; `tskd ship` copies this module into its `scripts/`."""

import importlib.util
import json
from pathlib import Path

_MODULES = {"pytorch-ignite": "ignite", "scikit-image": "skimage", "pillow": "PIL"}  # where the names differ


def check_packages(bundle_root: str, largest_component: bool = False) -> None:
    """End the process with one line if a package of metadata.json, or of an option, is not installed.

    Args:
        bundle_root: folder of the bundle.
        largest_component: whether only the largest component of some structure is kept.
    """
    metadata = json.loads(Path(bundle_root, "configs", "metadata.json").read_text(encoding="utf-8"))
    versions = metadata["required_packages_version"]
    missing = [f"{name}=={version}" for name, version in versions.items() if not _installed(name)]
    if largest_component and "scikit-image" not in versions and not _installed("scikit-image"):
        missing.append("scikit-image")
    if missing:
        raise SystemExit(f"this bundle needs packages that are not installed: pip install {' '.join(missing)}")


def _installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(_MODULES.get(package, package.replace("-", "_"))) is not None
    except (ImportError, ValueError):
        return False
