"""From a library to what is to be decided: the obligations that specs state, and the systems of their subjects."""

from __future__ import annotations

from collections.abc import Iterable

from mmucheck.analyses.subjects import Obligation, Subject, digest
from mmucheck.ir.balance import unbalanced
from mmucheck.ir.changes import apply_change
from mmucheck.ir.expand import Expander
from mmucheck.ir.program import DeviceDecl, DeviceVar, Program, PropertyDecl, System, subexpressions
from mmucheck.machine.visibility import resources
from mmucheck.names.builtins import ADDRESS_SPACE, LEVELS
from mmucheck.names.library import Library, Versioned
from mmucheck.syntax import ast
from mmucheck.syntax.diagnostics import Diagnostic, InputError, Span

EXPECTED = {"proves": "proved", "refutes": "refuted", "vacuous": "vacuous"}


def obligations(library: Library, specs: Iterable[ast.Spec]) -> list[Obligation]:
    """Everything the specs state, in source order. The library must have passed its checks."""
    found: list[Obligation] = []
    for spec in specs:
        for check in spec.checks:
            assert check.side is not None
            paths = tuple((t.name, _version(library, t)) for t in check.threads)
            for devices in check.devices:
                for verdict in check.verdicts:
                    for name in verdict.properties:
                        names = tuple(d.name for d in devices)
                        prop = library.properties[name.name]
                        if prop.device:
                            names = (prop.device,)
                        subject = _subject(library, paths, names, check.side, check.again)
                        found.append(
                            Obligation(
                                subject,
                                name.name,
                                EXPECTED[verdict.verdict],
                                verdict.reason,
                                spec.name,
                                check.name,
                                check.doc,
                                check.span,
                            )
                        )
    return list(dict.fromkeys(found))


def _version(library: Library, target: ast.QName) -> str:
    return next(v.version for v in library.named(target.name) if not target.version or v.version == target.version)


def _subject(library: Library, paths: tuple[tuple[str, str], ...], devices: tuple[str, ...], side: ast.Side,
             again: bool) -> Subject:  # fmt: skip
    if side.kind == "under":
        return Subject(paths, devices, side.name, again=again)
    change = library.changes[side.name]
    protocol = change.before if side.kind == "before" else change.after
    return Subject(paths, devices, protocol, side.name, side.kind, tuple(e.name for e in side.excepted), again)


class Builder:
    """Builds the systems of a library's subjects; applies each change once."""

    def __init__(self, library: Library) -> None:
        self.library = library
        self._last: tuple[Subject, System] | None = None
        self._changed: dict[tuple[str, tuple[str, ...]], Library] = {}

    def system(self, subject: Subject) -> System:
        """The subject in the intermediate form. Raises InputError for what only shows when it is put together."""
        if self._last is None or self._last[0] != subject:
            self._last = subject, self._build(subject)
        return self._last[1]

    def form(self, subject: Subject) -> bytes:
        """A digest of it: what has the same is the same system. Raises like ``system``."""
        return digest(self.system(subject))

    def notes(self, subject: Subject) -> tuple[str, ...]:
        """What a report should say of it."""
        return self.system(subject).notes

    def _build(self, subject: Subject) -> System:
        expander = self._expander(subject)
        library = self._library(subject)
        self._registration(subject)
        programs = []
        levels = LEVELS
        for name, version in subject.paths:
            path = library.code[name, version].declaration
            assert isinstance(path, ast.Path)
            programs.append(expander.path(path, version))
            if path.levels is not None:
                levels = self.levels((name, version))
        devices = tuple(expander.device(library.devices[d]) for d in subject.devices)
        handlers = [h for d in devices for h in d.handlers]
        problems = [d for program in (*programs, *handlers) for d in unbalanced(program)]
        if problems:
            raise InputError(problems)
        locks = tuple(expander.lock(lock) for lock in library.locks.values())
        shared = tuple(expander.shared(v) for v in library.shared.values() if v.name in _shared_names(programs, devices))
        return System(tuple(programs), devices, locks, subject.protocol, self._notes(subject, levels), levels, shared, subject.again)

    def levels(self, path: tuple[str, str]) -> tuple[str, str]:
        """The lower and the upper level of the page table that a path works on."""
        declaration = self.library.code[path].declaration
        assert isinstance(declaration, ast.Path)
        declared = declaration.levels
        return (declared[0].name, declared[1].name) if declared is not None else LEVELS

    def properties(self, subject: Subject, names: Iterable[str]) -> list[PropertyDecl]:
        expander = self._expander(subject)
        return [self._property(expander, name) for name in dict.fromkeys(names)]

    def _property(self, expander: Expander, name: str) -> PropertyDecl:
        prop = self.library.properties[name]
        target = prop
        while target.formula is None:
            target = self.library.properties[target.alias]
        decl = expander.prop(target)
        return PropertyDecl(name, prop.title or decl.title, decl.when, decl.binders, decl.formula)

    def _expander(self, subject: Subject) -> Expander:
        return Expander(self._library(subject), subject.protocol, [self.library.devices[d] for d in subject.devices])

    def _library(self, subject: Subject) -> Library:
        if subject.side != "after":
            return self.library
        key = (subject.change, subject.excepted)
        if key not in self._changed:
            self._changed[key] = apply_change(self.library, self.library.changes[subject.change], frozenset(subject.excepted))
        return self._changed[key]

    def _registration(self, subject: Subject) -> None:
        """A protocol may refuse a device that registers certain callbacks together (v6.6: mmu_notifier.c, registration fails)."""
        callbacks = self.library.callbacks(subject.protocol)
        for name in subject.devices:
            hooks = {h.name: h for h in self.library.devices[name].hooks}
            alone = [h for h in hooks if h in callbacks and "not_with_start_end" in callbacks[h].attributes]
            others = [h for h in ("invalidate_range_start", "invalidate_range_end") if h in hooks and h in callbacks]
            if alone and others:
                message = f"`{subject.protocol}` refuses `{name}`: it may not register both `{alone[0]}` and `{others[0]}`"
                raise InputError([Diagnostic("E405", message, hooks[others[0]].span, "registration fails in the kernel too")])

    def _notes(self, subject: Subject, levels: tuple[str, str]) -> tuple[str, ...]:
        callbacks = self.library.callbacks(subject.protocol)
        moved = dict.fromkeys(path[0] for path in subject.paths if self.levels(path) != levels)
        return tuple(f"{name} is taken at {', '.join(levels)}, the levels of another path" for name in moved) + tuple(
            f"{name} listens to {hook.name}(), which {subject.protocol} does not have: it is never called"
            for name in subject.devices
            for hook in self.library.devices[name].hooks
            if hook.name not in callbacks
        )


def _shared_names(paths: Iterable[Program], devices: Iterable[DeviceDecl]) -> frozenset[str]:
    """Variables of the address space that the paths use. Raises InputError if devices do: what follows of one thread's paths rests on it
    that nobody else does."""
    found: set[str] = set()
    strays: list[Span] = []
    for step in (n.step for program in (*paths, *(h for d in devices for h in d.handlers)) for n in program.nodes):
        names = {name for owner, name in resources(step) if owner == ADDRESS_SPACE}
        found |= names
        strays += [step.origin.span] if names and step.origin.actor else []
    for cache in (c for d in devices for c in d.caches if c.when is not None and c.span is not None):
        assert cache.when is not None
        assert cache.span is not None
        if any(isinstance(e, DeviceVar) and e.device == ADDRESS_SPACE for e in subexpressions(cache.when)):
            strays.append(cache.span)
    if strays:
        message = "this uses a variable of the address space: devices know nothing of it"
        raise InputError([Diagnostic("E213", message, span) for span in dict.fromkeys(strays)])
    return frozenset(found)


def path_of(versioned: Versioned) -> tuple[str, str]:
    return versioned.declaration.name, versioned.version
