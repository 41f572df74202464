"""Functions of the `tskd` command: a command's arguments are its function's, and its help is the docstring.

Each takes what the command line gives, calls one part of the package, imported inside so that `tskd --help` stays fast,
and prints the result. `tskd.cli` lists them.
"""
