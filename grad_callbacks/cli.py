"""The ``grad-callbacks`` command with all that this package can do."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from grad_callbacks.doctor.command import add_command as add_doctor
from grad_callbacks.lint.command import add_command as add_lint
from grad_callbacks.tracking import cli


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return cli.main(arguments, [add_doctor, add_lint])


if __name__ == "__main__":
    sys.exit(main())
