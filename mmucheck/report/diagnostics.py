"""Diagnostics as text: place, code, sentence, the line with carets, what to do, and how many there are."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from mmucheck.report.style import Style
from mmucheck.syntax.diagnostics import Diagnostic, Span

Reader = Callable[[str], str | None]
"""Gives the text of a file by its shown name, None if it cannot be had."""

MAX_LINE = 110
MAX_SHOWN = 50


def render(diagnostics: Iterable[Diagnostic], read: Reader, style: Style) -> str:
    """Every diagnostic in source order, then a line that counts them. ``read`` may return None: then no line is shown."""
    ordered = sorted(set(diagnostics), key=lambda d: d.sort_key)
    lines: dict[str, list[str]] = {}
    for name in {d.span.file for d in ordered if d.span.file}:
        text = read(name)
        lines[name] = text.split("\n") if text is not None else []
    blocks = [_block(d, lines.get(d.span.file, []), style) for d in ordered[:MAX_SHOWN]]
    count = len(ordered)
    if count > MAX_SHOWN:
        blocks.append(f"... and {count - MAX_SHOWN} more")
    files = len({d.span.file for d in ordered})
    total = f"{count} error{'s' * (count != 1)}" + (f" in {files} files" if files > 1 else "")
    return "\n".join([*blocks, total]) + "\n"


def _block(diagnostic: Diagnostic, lines: list[str], style: Style) -> str:
    where = f"{diagnostic.span}: " if diagnostic.span.file else ""
    shown = [f"{style.strong(_clean(where))}{style.bad(f'error[{diagnostic.code}]')}: {_clean(diagnostic.message)}"]
    shown += _excerpt(diagnostic.span, lines, style)
    if diagnostic.hint:
        shown.append(f"  help: {_clean(diagnostic.hint)}")
    shown += [f"  note: {_clean(str(span))}: {_clean(text)}" for text, span in diagnostic.notes]
    return "\n".join(shown)


def _excerpt(span: Span, lines: list[str], style: Style) -> list[str]:
    """The line and its carets; nothing if the place is the whole file or unknown."""
    if not 1 <= span.line <= len(lines) or not lines[span.line - 1].strip():
        return []
    line = lines[span.line - 1].rstrip("\r")
    start = span.column - 1
    end = span.end_column - 1 if span.end_line == span.line else len(line)
    end = max(start + 1, min(end, max(len(line), start + 1)))
    if len(line) > MAX_LINE:
        cut = max(0, min(start - 20, len(line) - MAX_LINE))
        line, start, end = line[cut : cut + MAX_LINE], start - cut, end - cut
        end = min(end, MAX_LINE)
    pad = "".join("\t" if c == "\t" else " " for c in line[:start].ljust(start))
    number = str(span.line)
    gutter = " " * len(number)
    return [f"  {number} | {_clean(line, keep_tabs=True)}", f"  {gutter} | {pad}{style.bad('^' * max(1, end - start))}"]


def _clean(text: str, keep_tabs: bool = False) -> str:
    """Control characters of a hostile file must not reach the terminal."""
    return "".join(c if c.isprintable() or (keep_tabs and c == "\t") else "?" for c in text)
