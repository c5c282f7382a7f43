"""The findings of the checks, and the table of all findings."""

from __future__ import annotations

import subprocess
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warning", "broken"]
WIDTH, LEAST = 110, 50  # of the table, and of its last column beside long folder names


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's table.

    Attributes
    ----------
    topic, check : str
        "MPI" and "mpiexec".
    state : {"ok", "warning", "broken"}
        warning: something will be slower or is missing; broken: something will fail.
    found : str
    advice : str
        Advice on what to do; empty if nothing has to be done.
    """

    topic: str
    check: str
    state: State
    found: str
    advice: str = ""


def format_findings(findings: Iterable[Finding]) -> str:
    """Return the findings as a table, each with its advice below, and the counts."""
    findings = list(findings)
    widths = [max(len(text) for text in column) for column in
              zip(*((finding.state, finding.topic, finding.check) for finding in findings), strict=True)]
    indent = " " * (sum(widths) + 6)
    lines = []
    for finding in findings:
        head = "  ".join(text.ljust(width) for text, width in
                         zip((finding.state, finding.topic, finding.check), widths, strict=True))
        text = finding.found + (f"\n-> {finding.advice}" if finding.advice else "")
        wrapped = [line for part in text.splitlines() for line in
                   textwrap.wrap(part, max(LEAST, WIDTH - len(indent)), break_long_words=False, break_on_hyphens=False)]
        lines += [f"{head}  {wrapped[0]}", *(indent + line for line in wrapped[1:])]
    counts = [f"{sum(finding.state == state for finding in findings)} {state}" for state in ("ok", "warning", "broken")]
    return "\n".join([*lines, "", ", ".join(counts)])


def ask(command: Sequence[str], environment: Mapping[str, str] | None = None, seconds: float = 60
        ) -> subprocess.CompletedProcess:
    """Run a command and return its result.

    If it cannot be started or does not end, the status is not 0 and the standard error gives the reason.
    """
    try:
        return subprocess.run([str(word) for word in command], env=environment, capture_output=True, text=True,
                              timeout=seconds, check=False, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = f"no answer in {seconds:g} s" if isinstance(error, subprocess.TimeoutExpired) else str(error)
        return subprocess.CompletedProcess(command, 1, "", reason)


def last_line(done: subprocess.CompletedProcess) -> str:
    lines = (done.stderr.strip() or done.stdout.strip() or f"status {done.returncode}").splitlines()
    return lines[-1][:200]
