"""What the comparison prints: a line a program, and a line a goal."""

from __future__ import annotations

from typing import Sequence

from .catalogue import MPT_DATA, MPT_MODEL, PROGRAMS
from .figures import figure, left_out, ratio
from .goals import Measured, Verdict, gigabytes, shown

HEAD = (
    *("program", "precision", "rounds", "examples/s", "peak memory"),
    *("mpt model-parallel / it", "mpt data-parallel / it"),
)


def table(measured: Measured, failures: Sequence[str]) -> str:
    """The programs that gave figures, fastest first within a precision, and under it those that failed."""
    rows = []
    for precision in ("bf16", "fp32"):
        found = [(program, rates) for program in PROGRAMS if (rates := measured.rates(program.name, precision))]
        found.sort(key=lambda pair: -figure(list(pair[1].values())).median)
        for program, rates in found:
            ratios = [ratio(measured.rates(own.name, precision), rates) for own in (MPT_MODEL, MPT_DATA)]
            rows.append(
                (
                    program.title,
                    precision,
                    str(len(rates)),
                    shown(figure(list(rates.values())), ".1f"),
                    memory(measured, program.name, precision),
                    *(shown(value, ".2f") if value else "" for value in ratios),
                )
            )
    lines = columns([HEAD, *rows]) if rows else ["no program gave a figure"]
    few = min((int(row[2]) for row in rows), default=0)
    if rows:
        lines.append("")
        lines.append(
            "Medians over the rounds; ratios are taken within each round."
            + (" In brackets: 95 % intervals." if left_out(few) is not None else " A 95 % interval needs 6 rounds.")
        )
    return "\n".join([*lines, *failures])


def memory(measured: Measured, program: str, precision: str) -> str:
    """`1.19 GB (0.51 GB libraries)`: PyTorch's is the CUDA build, whose are larger than a CPU build's."""
    peak, libraries = (measured.memory(program, precision, which) for which in ("peak", "libraries"))
    told = f" ({gigabytes(libraries)} libraries)" if libraries else ""
    return f"{gigabytes(peak)}{told}" if peak else ""


def goal_lines(verdicts: Sequence[Verdict]) -> str:
    """Each goal with what was found."""
    rows = [
        (
            ("met" if verdict.met else "MISSED") + (", within the noise" if verdict.doubtful else ""),
            verdict.goal,
            verdict.found,
        )
        for verdict in verdicts
    ]
    return "\n".join(columns(rows))


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows whose columns are as wide as their widest cell."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))] if rows else []
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
