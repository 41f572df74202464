"""The `tskd` command, composed of the functions in `tskd.commands`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError, Group, Parameter

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
START = Group("Start", sort_key=1)
DATA = Group("Data", sort_key=2)
TRAIN = Group("Train", sort_key=3)
RESULTS = Group("Results", sort_key=4)
USE = Group("Use a model", sort_key=5)
MACHINE = Group("This machine", sort_key=6)
OPTIONS = Group("Options", sort_key=7)

app.command(data_sets.init, group=START)
app.command(training.train, group=START)
app.command(training.quickstart, group=START)
app.command("tskd.commands.prepare:prepare", name="prepare", help="Write a data set's dataset.json.", group=DATA)
app.command(data_sets.check, group=DATA)
app.command(training.preview_augmentation, group=DATA)
app.command(data_sets.weights)
app.command(training.run, group=TRAIN, version_flags=())
app.command(training.distil, alias="distill", group=TRAIN)
app.command(training.search, group=TRAIN)
app.command(models.merge, group=TRAIN)
app.command(models.evaluate, group=RESULTS)
app.command(results.score, group=RESULTS)
app.command(results.report, group=RESULTS)
app.command(results.results, group=RESULTS)
app.command(models.ship, group=USE)
app.command(clinic.predict, group=USE)
app.command(clinic.export, group=USE)
app.command(models.doctor, group=MACHINE)
app.command(models.profile, group=MACHINE)
for flag in ("--help", "--version"):
    app[flag].group = OPTIONS


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
