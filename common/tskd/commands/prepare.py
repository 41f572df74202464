"""`tskd prepare`: a command for each data set, whose options are the arguments of a function of `tskd.data`."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Group, Parameter, validators

from tskd import data
from tskd.commands import arguments

# either of these scales the volumes
_SCALING = Group("Scaling (one of them)", validator=validators.MutuallyExclusive())
_PATH = str | os.PathLike[str]
# arguments that the command line takes in another form than the function, by their type or name
_FORMS: dict[Any, Any] = {
    _PATH: Path,
    _PATH | None: Path | None,
    "labels": Annotated[
        list[str],
        Parameter(
            converter=lambda _, tokens: arguments.names(tokens[0].value),
            n_tokens=1,
            help='names of mask values 1, 2, ... with commas between them: "vessel,nerve"',
        ),
    ],
    "window": Annotated[tuple[float, float] | None, Parameter(group=_SCALING)],
}
_VOLUMES: dict[str, Any] = {"intensity": Parameter(group=_SCALING)}

prepare = App(name="prepare", help="Write a data set's dataset.json.")


def _add(name: str, function: Callable[..., Path], **more: Any) -> None:
    """Make a command of a function that prepares a data set: each argument is an option, `folder` has no name."""

    @wraps(function)
    def command(*folder: Path, **options: Any) -> None:
        path = function(**options, **({"folder": folder[0]} if folder else {}))
        _report(path, several=name not in ("images-masks", "volumes"))  # these have looked at the names themselves

    signature = inspect.signature(function, eval_str=True)
    parameters = []
    for parameter in sorted(signature.parameters.values(), key=lambda p: p.default is not p.empty):
        form = _FORMS.get(parameter.name, _FORMS.get(parameter.annotation, parameter.annotation))
        if parameter.name in more:
            form = Annotated[form, more[parameter.name]]
        kind = inspect.Parameter.POSITIONAL_ONLY if parameter.name == "folder" else inspect.Parameter.KEYWORD_ONLY
        parameters.append(parameter.replace(kind=kind, annotation=form))
    parameters.sort(key=lambda parameter: parameter.kind)
    command.__signature__ = signature.replace(parameters=parameters, return_annotation=None)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    prepare.command(command, name=name)


def _report(path: Path, several: bool) -> None:
    """Check a dataset.json, and print its lists' lengths and how it was split; `several`: as `data.check`."""
    data.check(path, several=several)
    content = data.read(path)
    sizes = [
        f"{len(content[name])} {name}" for name in ("training", "unlabelled", "validation", "test") if content[name]
    ]
    print(f"{path}: " + ", ".join(sizes))
    for key in ("files", "split", "groups", "left_out"):
        if key in content["provenance"]:
            print(f"  {key.replace('_', ' ').replace('groups', 'patients')}: {content['provenance'][key]}")


_add("phantom", data.prepare_phantom)
_add("chaos-mr", data.prepare_chaos_mr)
_add("isic2017", data.prepare_isic2017)
_add("usgra", data.prepare_usgra)
_add("chase-db1", data.prepare_chase_db1)
_add("kidneyus", data.prepare_kidneyus)
_add("drive", data.prepare_drive)
_add("ph2", data.prepare_ph2)
_add("autooral", data.prepare_autooral)
_add("isic2018", data.prepare_isic2018)
_add("kvasir-seg", data.prepare_kvasir_seg)
_add("acdc", data.prepare_acdc)
_add("chaos-ct", data.prepare_chaos_ct)
_add("chaos-t1dual", data.prepare_chaos_t1dual)
_add("images-masks", data.prepare_images_masks)
_add("volumes", data.prepare_volumes_masks, **_VOLUMES)
_add("nnunet", data.prepare_nnunet, **_VOLUMES)
