"""Runs the command line for a test: in this process, or as a program of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from faceward.cli.app import build_app


@dataclass(frozen=True)
class Answer:
    status: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)


@dataclass(frozen=True)
class CommandLine:
    """Runs `faceward --config CONFIG ...`."""

    config: Path

    def __call__(self, *arguments: object, typed: str | None = None) -> Answer:
        ended = CliRunner().invoke(build_app(), self._with_config(arguments), input=typed)
        if ended.exception is not None and not isinstance(ended.exception, SystemExit):
            raise ended.exception
        return Answer(ended.exit_code, ended.stdout, ended.stderr)

    def succeeds(self, *arguments: object, typed: str | None = None) -> Answer:
        answer = self(*arguments, typed=typed)
        assert answer.status == 0, answer.stderr
        return answer

    def fails(self, *arguments: object, typed: str | None = None) -> str:
        """The message of an error: one line, on stderr, with exit status 1, and nothing on stdout."""
        answer = self(*arguments, typed=typed)
        assert (answer.status, answer.stdout) == (1, ""), answer
        (line,) = answer.stderr.strip().splitlines()
        assert line.startswith("Error: ")
        return line

    def misused(self, *arguments: object) -> str:
        """What a wrong way to call it is told, as running words, with exit status 2."""
        answer = self(*arguments)
        assert (answer.status, answer.stdout) == (2, ""), answer
        return " ".join(answer.stderr.replace("│", " ").split())

    def program(self, *arguments: object, **options: Any) -> subprocess.Popen[str]:
        """The same in a process of its own."""
        command = [sys.executable, "-c", "from faceward.cli import main; main()", *self._with_config(arguments)]
        environment = {**os.environ, **options.pop("env", {})}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, env=environment, **pipes | options)

    def _with_config(self, arguments: tuple[object, ...]) -> list[str]:
        return ["--config", str(self.config), *map(str, arguments)]
