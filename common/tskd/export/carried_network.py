"""A network of this project inside a shipped bundle, as one file in `scripts/`: MONAI alone can build it there."""

from __future__ import annotations

import ast
import importlib.util
import json
import shutil
from pathlib import Path

from tskd.errors import TskdError

PACKAGE = "tskd"


def carry_network(bundle: Path) -> None:
    """Copy the module of inference.json's network into `scripts/`, and name it there; nothing for MONAI's networks.

    `monai.bundle run` and MONAI Label put the bundle's folder on the search path of modules.

    Args:
        bundle: folder of the bundle that is being made, with `scripts/` as `write_scripts` makes it.

    Raises:
        TskdError: the module needs more of this project than itself.
    """
    file = bundle / "configs" / "inference.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    module, _, name = str(config["network_def"].get("_target_", "")).rpartition(".")
    if module.partition(".")[0] != PACKAGE:
        return
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise TskdError(f"{file}: expected a module that defines the network, found {module}")
    source = Path(spec.origin)
    if needed := sorted(_imported(source)):
        raise TskdError(
            f"{source}: expected a network that imports torch and MONAI only, so that the bundle can carry it, found "
            f"imports of {', '.join(needed)}"
        )
    scripts = bundle / "scripts"
    shutil.copyfile(source, scripts / source.name)
    config["network_def"]["_target_"] = f"scripts.{source.stem}.{name}"
    file.write_text(json.dumps(config, indent=4) + "\n", encoding="utf-8")


def _imported(source: Path) -> set[str]:
    """Modules of this project that a file imports, relative ones too."""
    modules = set()
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = ["." * node.level + (node.module or "")]
        modules |= {name for name in names if name.startswith((PACKAGE, "."))}
    return modules
