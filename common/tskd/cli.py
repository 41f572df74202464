"""The `tskd` command, composed of the functions in `tskd.commands`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError, Parameter

from tskd import __version__
from tskd.commands import clinic, data_sets, models, results, training
from tskd.errors import TskdError, user_message

app = App(
    name="tskd",
    help="Task-specific knowledge distillation for medical image segmentation. Your own data: init, train, predict.",
    version=f"tskd {__version__}",
    help_format="markdown",
    default_parameter=Parameter(consume_multiple=True, negative=()),
    result_action="return_value",
)
app.command("tskd.commands.prepare:prepare", name="prepare", help="Write a data set's dataset.json.")
app.command(data_sets.init)
app.command(data_sets.check)
app.command(data_sets.weights)
app.command(training.train)
app.command(training.distil, alias="distill")
app.command(training.search)
app.command(training.preview_augmentation)
app.command(training.quickstart)
app.command(results.score)
app.command(results.report)
app.command(results.results)
app.command(models.profile)
app.command(models.doctor)
app.command(models.merge)
app.command(models.evaluate)
app.command(models.ship)
app.command(clinic.predict)
app.command(clinic.export)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: what stands behind `tskd`; None takes the process's own.

    Returns:
        The exit status: 0, 1 where `doctor` finds nothing that fits, or 2 after one line that says what is wrong.
    """
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    try:
        command, bound, _ = app.parse_args(tokens, exit_on_error=False, print_error=False)
        status = command(*bound.args, **bound.kwargs)
        incomplete = command.__name__ == "help_print" and not {"-h", "--help"} & set(tokens)
        return 2 if incomplete else status or 0
    except CycloptsError as error:
        help_command = " ".join(["tskd", *(error.command_chain or ()), "--help"])
        print(f"error: {' '.join(str(error).split())} See `{help_command}`.", file=sys.stderr)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("tskd"):
            raise
        print(
            f"error: this needs the package {error.name}, which is not installed: pip install 'tskd[train]', "
            "or for masks alone 'tskd[predict]' and `--backend onnx`",
            file=sys.stderr,
        )
    except (TskdError, OSError) as error:
        message = user_message(error)
        if message is None:
            raise
        print(f"error: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
