"""The command line `faceward`. Thin: each command calls a FaceService and shows what it answered."""

import sys


def main() -> None:
    """The entry point of the program `faceward`; ends the process with its exit status."""
    from faceward.cli.app import build_app

    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a name that the terminal's encoding lacks must not end a command
            stream.reconfigure(errors="backslashreplace")
    build_app()(prog_name="faceward")
