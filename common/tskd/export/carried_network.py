"""The network of a shipped bundle as MONAI alone can build it: a file in `scripts/`, no modules without use."""

from __future__ import annotations

import ast
import importlib.util
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tskd.errors import TskdError
from tskd.export import unused_modules

PACKAGE = "tskd"

# MONAI puts a bundle's folder on the search path of modules just before `run`, which is too late for
# `monai.bundle.load`: that only initialises the workflow. The workflow alone knows where its configs lie.
# No entry of `imports` is needed, because an overlay may bring a list of its own; MONAI takes an expression with both
# "import" and a reference for a statement.
_FOLDER = (
    "$next((str(call.frame.f_locals['self'].config_root_path.resolve().parent) "
    "for call in @python_inspect.stack(0) "
    "if isinstance(call.frame.f_locals.get('self'), monai.bundle.ConfigWorkflow)), str(@bundle_root))"
)
_FORGET = (
    "$[modules.pop(name) for modules in [__import__('sys').modules] for name in list(modules) "
    "if name.split('.')[0] == 'scripts']"
)
_SEARCH = "$@python_sys.path.insert(1, @scripts_folder)"
_MODULES = {"python_sys": "$__import__('sys')", "python_inspect": "$__import__('inspect')"}


def find_scripts(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config whose `initialize` makes the bundle's `scripts/` importable, from whatever folder it is read.

    What an earlier bundle of the process had as `scripts` is forgotten.
    """
    search = {"scripts_folder": _FOLDER, "_desc_scripts_folder": "of this bundle, also for monai.bundle.load"}
    return {**config, **_MODULES, **search, "initialize": [_FORGET, _SEARCH, *config.get("initialize", [])]}


def needs_scripts(config: Mapping[str, Any]) -> bool:
    """Return whether a config's network is one of `scripts/`."""
    return str(config["network_def"].get("_target_", "")).startswith("scripts.")


def carry_network(bundle: Path) -> None:
    """Copy the module of inference.json's network into `scripts/`, and name it there; nothing for MONAI's networks.

    MONAI Label puts the bundle's folder on the search path of modules; for the rest `find_scripts` does.

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
    if not (bundle / "scripts" / source.name).exists():
        shutil.copyfile(source, bundle / "scripts" / source.name)
    config["network_def"]["_target_"] = f"scripts.{source.stem}.{name}"
    file.write_text(json.dumps(find_scripts(config), indent=4) + "\n", encoding="utf-8")


def leave_out(bundle: Path, unused: Sequence[str]) -> None:
    """Let inference.json's network be built without the named modules, and with dropout where that is asked for.

    Args:
        bundle: as for `carry_network`, which comes first.
        unused: names of modules, as `unused_modules` gives them.
    """
    source = Path(unused_modules.__file__)
    file = bundle / "configs" / "inference.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    config = config if needs_scripts(config) else find_scripts(config)
    config["network_def"] = {
        "_target_": f"scripts.{source.stem}.without_modules",
        "_desc_": "modules that no mask depends on are left out; MONAI Label's scores set dropout",
        "network": config["network_def"],
        "unused": list(unused),
    }
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
