"""`faceward serve` as a process of its own, on a port that it finds itself."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PROGRAM = (sys.executable, "-c", "from faceward.cli import main; main()")


class Served:
    """Started with `arguments`; `environment` beside this process's own. url, key: as it printed them."""

    def __init__(self, *arguments: str, environment: Mapping[str, str]) -> None:
        self.process = subprocess.Popen(
            [*PROGRAM, "serve", "--port", "0", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )
        self.said: list[str] = []
        self._log: list[str] = []
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line.strip())
            if found := re.search(r"serves (\S+),", line):
                self.url = found[1]
                return
        raise AssertionError(f"it did not start, status {self.process.wait()}:\n{self.log()}")

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as stream:
            self._log.extend(iter(stream.readline, ""))

    @property
    def first_key(self) -> str:
        return next(line for line in self.said if line.startswith("fw_"))

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Its exit status after the signal."""
        self.process.send_signal(number)
        return self.ended()

    def ended(self) -> int:
        """Its exit status, once it has ended."""
        status = self.process.wait(60)
        self._reader.join(10)
        return status

    def log(self) -> str:
        return "".join(self._log)

    def events(self, name: str) -> list[dict[str, Any]]:
        """Lines of its log about one event."""
        lines = [json.loads(line) for line in self.log().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == name]


def run_serve(*arguments: str, environment: Mapping[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    """A start that is expected to fail."""
    return subprocess.run(
        [*PROGRAM, "serve", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        cwd=cwd,
        timeout=60,
        check=False,
    )
