"""Say in one line which packages a shipped bundle lacks; `tskd ship` copies this module into its `scripts/`."""

import importlib.util
import json
from pathlib import Path

_MODULES = {"pytorch-ignite": "ignite", "scikit-image": "skimage", "pillow": "PIL"}  # where the names differ


def check_packages(bundle_root: str) -> None:
    """End the process with one line if a package of metadata.json is not installed."""
    metadata = json.loads(Path(bundle_root, "configs", "metadata.json").read_text(encoding="utf-8"))
    versions = metadata["required_packages_version"]
    if missing := [f"{name}=={version}" for name, version in versions.items() if not _installed(name)]:
        raise SystemExit(f"this bundle needs packages that are not installed: pip install {' '.join(missing)}")


def _installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(_MODULES.get(package, package.replace("-", "_"))) is not None
    except (ImportError, ValueError):
        return False
