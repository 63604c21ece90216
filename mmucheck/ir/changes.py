"""Applying a change: hunks edit the bodies of paths and macros, nothing else is touched."""

from __future__ import annotations

from dataclasses import replace

from mmucheck.names.library import Library, Versioned
from mmucheck.syntax import ast
from mmucheck.syntax.diagnostics import Diagnostic, InputError, suggest


def apply_change(library: Library, change: ast.Change, excepted: frozenset[str] = frozenset()) -> Library:
    """The library with the change's hunks applied, except those named.

    Raises InputError if a hunk does not find what it edits, or finds it more than once where it must be unique.
    """
    problems: list[Diagnostic] = []
    code = dict(library.code)
    for hunk in change.hunks:
        if hunk.target.name in excepted:
            continue
        for key, versioned in library.code.items():
            if key[0] == hunk.target.name and (not hunk.target.version or key[1] == hunk.target.version):
                code[key] = Versioned(_edit(versioned.declaration, hunk, problems), versioned.version)
    if problems:
        raise InputError(problems)
    return replace(library, code=code)


def _edit(code: ast.Path | ast.Macro, hunk: ast.Hunk, problems: list[Diagnostic]) -> ast.Path | ast.Macro:
    body = code.body
    if body is None:
        problems.append(Diagnostic("E501", f"`{code.name}` is an expression; a hunk edits steps", hunk.span))
        return code
    for edit in hunk.edits:
        names = _calls(body)
        matches = names.count(edit.callee)
        if edit.ordinal > matches or not matches:
            what = f"call #{edit.ordinal} of" if matches else "call of"
            hint = suggest(edit.callee, names) or (f"there are {matches}" if matches else "")
            problems.append(Diagnostic("E502", f"`{code.name}` has no {what} `{edit.callee}`", edit.span, hint))
            continue
        if edit.kind != "replace" and not edit.ordinal and matches > 1:
            message = f"`{code.name}` calls `{edit.callee}` {matches} times: which one?"
            problems.append(Diagnostic("E503", message, edit.span, f"write `{edit.callee} #1`"))
            continue
        body = _Rewriter(edit).block(body)
    return replace(code, body=body)


class _Rewriter:
    """Rewrites the matching calls of one edit, counting them in source order."""

    def __init__(self, edit: ast.Edit) -> None:
        self._edit, self._count = edit, 0

    def block(self, block: ast.Block) -> ast.Block:
        return replace(block, body=tuple(s for stmt in block.body for s in self._statement(stmt)))

    def _statement(self, stmt: ast.Stmt) -> list[ast.Stmt]:
        match stmt:
            case ast.CallStmt(name=name) if name == self._edit.callee:
                return self._matched(stmt)
            case ast.Block():
                return [self.block(stmt)]
            case ast.If(then=then, otherwise=otherwise):
                return [replace(stmt, then=self.block(then), otherwise=self.block(otherwise) if otherwise else None)]
            case ast.Choose(branches=branches):
                return [replace(stmt, branches=tuple(self.block(b) for b in branches))]
            case ast.For(body=body) | ast.While(body=body) | ast.With(body=body):
                return [replace(stmt, body=self.block(body))]
            case ast.Let(otherwise=otherwise) if otherwise is not None:
                return [replace(stmt, otherwise=self.block(otherwise))]
        return [stmt]

    def _matched(self, stmt: ast.CallStmt) -> list[ast.Stmt]:
        self._count += 1
        edit = self._edit
        if edit.ordinal and edit.ordinal != self._count:
            return [stmt]
        inserted = list(edit.inserted.body) if edit.inserted else []
        match edit.kind:
            case "replace":
                return [replace(stmt, name=edit.replacement)]
            case "remove":
                return []
            case "before":
                return [*inserted, stmt]
        return [stmt, *inserted]


def _calls(block: ast.Block) -> list[str]:
    """Names of called macros and steps in source order."""
    found: list[str] = []
    for stmt in block.body:
        match stmt:
            case ast.CallStmt(name=name):
                found.append(name)
            case ast.Block():
                found.extend(_calls(stmt))
            case ast.If(then=then, otherwise=otherwise):
                found.extend(_calls(then))
                found.extend(_calls(otherwise) if otherwise else [])
            case ast.Choose(branches=branches):
                for branch in branches:
                    found.extend(_calls(branch))
            case ast.For(body=body) | ast.While(body=body) | ast.With(body=body):
                found.extend(_calls(body))
            case ast.Let(otherwise=otherwise) if otherwise is not None:
                found.extend(_calls(otherwise))
    return found
