"""The command line: thin, a module for each command or family of commands."""

# Importing a module registers its commands; ``vlbias --help`` lists them in this order.
# isort: off
from vlbias.cli.application import app, main
from vlbias.cli import demo, balance, review, edit, provenance, editors, audit, convert, doctor, simulate, search  # noqa: F401
from vlbias.cli import bench, evaluate, transfer, reproduce, train, page  # noqa: F401
# isort: on

__all__ = ["app", "main"]
