"""Checks of whole declarations: devices, protocols, properties, changes, specs; and ``check`` for a whole library."""

from __future__ import annotations

from mmucheck.names.builtins import BINDER_KINDS, LEVEL_BITS, LOOKS, OF_THE_WORLD, PARAM_KINDS
from mmucheck.names.kinds import BodyChecker, Context, Scope
from mmucheck.names.library import Library, Versioned
from mmucheck.names.shapes import walk_expr
from mmucheck.syntax import ast
from mmucheck.syntax.diagnostics import Diagnostic, InputError, suggest


def check(library: Library) -> None:
    """Every name and kind in the library. Raises InputError with all that is wrong."""
    checker = _DeclarationChecker(library)
    checker.run()
    found = checker.body.diagnostics
    if not library.protocols:
        found = _without_consequences(library, found)
    if found:
        raise InputError(found)


def _without_consequences(library: Library, found: list[Diagnostic]) -> list[Diagnostic]:
    """Without any protocol every notifier call of a used file is unknown: only what the user's own files say is worth saying."""
    used = {target for targets in library.uses.values() for target in targets}
    own = [d for d in found if d.code != "E106" or d.span.file not in used]
    return own or found


class _DeclarationChecker:
    def __init__(self, library: Library) -> None:
        self.library = library
        self.body = BodyChecker(library)

    def run(self) -> None:
        for const in self.library.consts.values():
            self.body.expect(const.value, "number", Scope(), Context(constant=True))
        for variable in self.library.shared.values():
            self._shared(variable)
        for lock in self.library.locks.values():
            self._lock(lock)
        for versioned in self.library.code.values():
            self._code(versioned)
        for device in self.library.devices.values():
            self._device(device)
        for protocol in self.library.protocols.values():
            self._protocol(protocol)
        for prop in self.library.properties.values():
            self._property(prop)
        for change in self.library.changes.values():
            self._change(change)
        for spec in self.library.specs.values():
            self._spec(spec)

    def _shared(self, variable: ast.Shared) -> None:
        if variable.value is not None:
            self.body.expect(variable.value, "number", Scope(), Context(constant=True))
            for part in walk_expr(variable.value):
                if isinstance(part, ast.Call):
                    self.body.say("E212", "a variable of the address space starts with a constant or with `any`", part.span)
        if variable.name in self.library.consts:
            self.body.say("E104", f"`{variable.name}` is a constant, too", variable.span, "rename one")

    def _lock(self, lock: ast.Lock) -> None:
        if lock.key and lock.key not in PARAM_KINDS:
            self.body.say("E201", f"`{lock.key}` is not a kind", lock.span, suggest(lock.key, PARAM_KINDS))
        if lock.granule is not None:
            self.body.expect(lock.granule, "number", Scope(), Context(constant=True))

    def _code(self, versioned: Versioned) -> None:
        code = versioned.declaration
        scope = self.body.scope_of(code.params)
        ctx = Context(versioned.version)
        if isinstance(code, ast.Path):
            if code.levels is not None:
                self._levels(code.levels)
            for condition in code.requires:
                self.body.expect(condition, "bool", scope, ctx)
            self.body.block(code.body, scope, ctx)
        elif code.body is not None:
            self.body.block(code.body, scope, ctx)
        elif code.value is not None:
            self.body.kind(code.value, scope, ctx)

    def _levels(self, levels: tuple[ast.Name, ast.Name]) -> None:
        known = list(LEVEL_BITS)
        unknown = [level for level in levels if level.name not in LEVEL_BITS]
        for level in unknown:
            self.body.say("E211", f"`{level.name}` is not a level of the page table", level.span, suggest(level.name, known))
        lower, upper = levels
        if not unknown and known.index(upper.name) != known.index(lower.name) + 1:
            message = f"`{upper.name}` is not the level above `{lower.name}`"
            self.body.say("E211", message, upper.span, "write `levels PTE, PMD` or `levels PMD, PUD`")

    def _device(self, device: ast.Device) -> None:
        ctx = Context(device=device)
        say = self.body.say
        seen: set[str] = set()
        for part in (*device.caches, *device.variables, *device.locks, *device.handlers):
            if part.name in seen:
                say("E104", f"`{part.name}` is defined twice in this device", part.span)
            seen.add(part.name)
        if device.name in self.library.locks:
            say("E104", f"`{device.name}` is a lock and a device", device.span)
        for lock in device.locks:
            if lock.name in OF_THE_WORLD:
                say("E105", f"`{lock.name}` is what the checker calls a part of its world", lock.span, "choose another name")
        for i, cache in enumerate(device.caches):
            earlier = [c.name for c in device.caches[:i]]
            if cache.of not in ("pages", "tables"):
                hint = suggest(cache.of, ["pages", "tables"])
                say("E201", f"a cache is of `pages` or of `tables`, not of `{cache.of}`", cache.span, hint)
            if cache.source and cache.source != "page_table" and cache.source not in earlier:
                hint = suggest(cache.source, ["page_table", *earlier])
                say("E107", f"`{cache.source}` is not a cache declared before this one", cache.span, hint)
            if cache.when is not None:
                self.body.expect(cache.when, "bool", Scope(), ctx)
                if any(isinstance(e, ast.Call) and e.name in {*LOOKS, "nondet"} for e in walk_expr(cache.when)):
                    say("E214", "a cache is filled by what variables of its device hold, not by what a table or a cache holds", cache.span)
        for variable in device.variables:
            self.body.kind(variable.value, Scope(), Context(constant=True))
            self.body.not_shared(variable.name, variable.span)
        for lock in device.locks:
            self._lock(lock)
        names: set[str] = set()
        callbacks = {c.name: c for p in self.library.protocols.values() for c in p.callbacks}
        for hook in device.hooks:
            if hook.name in names:
                say("E104", f"this device has two hooks for `{hook.name}`", hook.span)
            names.add(hook.name)
            callback = callbacks.get(hook.name)
            if callback is None and callbacks:
                say("E401", f"no protocol has a callback `{hook.name}`", hook.span, suggest(hook.name, callbacks))
            elif callback is not None and len(callback.params) != len(hook.params):
                say("E206", f"`{hook.name}` has {len(callback.params)} parameter(s)", hook.span)
            self.body.block(hook.body, self.body.scope_of(hook.params, callback.params if callback else ()), ctx)
        for handler in device.handlers:
            self.body.block(handler.body, self.body.scope_of(handler.params), ctx)

    def _protocol(self, protocol: ast.Protocol) -> None:
        say = self.body.say
        if protocol.base and protocol.base not in self.library.protocols:
            say("E109", f"there is no protocol `{protocol.base}`", protocol.span, suggest(protocol.base, self.library.protocols))
        chain, name = [protocol.name], protocol.base
        while name in self.library.protocols and name not in chain:
            chain.append(name)
            name = self.library.protocols[name].base
        if name == protocol.name:
            say("E110", "protocols extend each other in a circle: " + " -> ".join([*chain, name]), protocol.span)
            return
        callbacks = self.library.callbacks(protocol.name)
        inherited = {**self.library.callbacks(protocol.base), **self.library.functions(protocol.base)}
        for gone in protocol.without:
            if gone.name not in inherited:
                say("E402", f"`{gone.name}` is not inherited, so it cannot be left out", gone.span, suggest(gone.name, inherited))
        for function in protocol.functions:
            scope = self.body.scope_of(function.params)
            self.body.block(function.body, scope, Context())
            for dispatch in _dispatches(function.body):
                if dispatch.callback not in callbacks:
                    hint = suggest(dispatch.callback, callbacks)
                    say("E403", f"`{protocol.name}` has no callback `{dispatch.callback}`", dispatch.span, hint)

    def _property(self, prop: ast.Property) -> None:
        if prop.formula is None:
            if prop.alias not in self.library.properties:
                hint = suggest(prop.alias, self.library.properties)
                self.body.say("E111", f"there is no property `{prop.alias}`", prop.span, hint)
            if prop.device not in self.library.devices and self.library.devices:
                self.body.say("E112", f"there is no device `{prop.device}`", prop.span, suggest(prop.device, self.library.devices))
            return
        scope = Scope()
        for binder in prop.binders:
            if binder.kind not in BINDER_KINDS:
                self.body.say("E201", f"a property binds devices, addresses, frames and tables, not `{binder.kind}`", binder.span,
                              suggest(binder.kind, BINDER_KINDS))  # fmt: skip
            if binder.name in scope.names:
                self.body.say("E104", f"`{binder.name}` is bound twice", binder.span)
            self.body.not_shared(binder.name, binder.span)
            scope.names[binder.name] = (BINDER_KINDS.get(binder.kind, "number"), False)
        kinds = [b.kind for b in prop.binders]
        for kind in sorted(set(kinds)):
            if kinds.count(kind) > 1:
                self.body.say("E113", f"a property may bind one {kind}", prop.span, "see `One witness` in mmucheck/README.md")
        before = len(self.body.diagnostics)
        self.body.expect(prop.formula, "bool", scope, Context(in_property=True))
        if len(self.body.diagnostics) > before:
            return
        bound = frozenset(b.name for b in prop.binders if b.kind == "address")
        for look in self._looks_beside(prop.formula, bound):
            self.body.say("E118", f"`{look.name}` looks at another address than the one that is bound", look.span,
                          "see `One witness` in mmucheck/README.md")  # fmt: skip

    def _looks_beside(self, expr: ast.Expr, bound: frozenset[str], inside: tuple[str, ...] = ()) -> list[ast.Call]:
        """The calls in a property that look, themselves or in a macro, at an address that is not bound."""

        def strays(arg: ast.Expr) -> bool:
            return not (isinstance(arg, ast.Name) and arg.name in bound)

        found: list[ast.Call] = []
        for call in (e for e in walk_expr(expr) if isinstance(e, ast.Call)):
            macro = self.library.find(call.name, "")
            if call.name in LOOKS:
                params = LOOKS[call.name].params
                found += [call] if any(k == "number" and strays(a) for k, a in zip(params, call.args, strict=False)) else []
            elif macro is not None and isinstance(macro.declaration, ast.Macro) and macro.declaration.value is not None:
                within = frozenset(p.name for p, a in zip(macro.declaration.params, call.args, strict=False) if not strays(a))
                if call.name not in inside and self._looks_beside(macro.declaration.value, within, (*inside, call.name)):
                    found.append(call)
        return found

    def _change(self, change: ast.Change) -> None:
        for name in (change.before, change.after):
            if name not in self.library.protocols:
                self.body.say("E109", f"there is no protocol `{name}`", change.span, suggest(name, self.library.protocols))
        seen: set[str] = set()
        for hunk in change.hunks:
            if str(hunk.target) in seen:
                self.body.say("E104", f"two hunks for `{hunk.target}`", hunk.span, "put both edits into one")
            seen.add(str(hunk.target))
            self.resolve(hunk.target)

    def resolve(self, target: ast.QName) -> Versioned | None:
        """The one path or macro a qualified name means."""
        found = [v for v in self.library.named(target.name) if not target.version or v.version == target.version]
        if len(found) == 1:
            return found[0]
        if not found:
            versions = [v.version for v in self.library.named(target.name)]
            hint = f"it exists at {', '.join(versions)}" if versions else suggest(target.name, [n for n, _ in self.library.code])
            self.body.say("E114", f"there is no path or macro `{target}`", target.span, hint)
        else:
            versions = [f"`{target.name}@{v.version}`" for v in found]
            self.body.say("E115", f"`{target.name}` exists in several kernel versions", target.span, "write " + " or ".join(versions))
        return None

    def _spec(self, spec: ast.Spec) -> None:
        say, library = self.body.say, self.library
        if not spec.checks:
            say("E601", f"spec `{spec.name}` has no check", spec.span)
        names: set[str] = set()
        for check in spec.checks:
            if check.name in names:
                say("E104", f"two checks are called `{check.name}`", check.span)
            names.add(check.name)
            if len(check.threads) > 2 and not check.again:
                message = "at most two VMM threads are decided"
                hint = "check them in pairs, or as what each of two threads may run: loop { choose A, B, C }"
                say("E605", message, check.threads[2].span, hint)
            for thread in check.threads:
                target = self.resolve(thread)
                if target and not isinstance(target.declaration, ast.Path):
                    say("E602", f"`{thread}` is a macro; a check runs a path", thread.span)
            for devices in check.devices:
                for twice in (d for i, d in enumerate(devices) if d.name in {e.name for e in devices[:i]}):
                    say("E104", f"`{twice.name}` stands twice on one address space: both would be one device", twice.span)
            for device in (d for devices in check.devices for d in devices):
                if device.name not in library.devices:
                    say("E112", f"there is no device `{device.name}`", device.span, suggest(device.name, library.devices))
            stated: set[str] = set()
            for prop in (p for v in check.verdicts for p in v.properties):
                if prop.name not in library.properties:
                    say("E111", f"there is no property `{prop.name}`", prop.span, suggest(prop.name, library.properties))
                if prop.name in stated:
                    say("E603", f"two verdicts on `{prop.name}` in one check", prop.span)
                stated.add(prop.name)
            self._side(check)

    def _side(self, check: ast.Check) -> None:
        say, library, side = self.body.say, self.library, check.side
        if side is None:
            say("E604", "under which protocol?", check.span, "add `under PROTOCOL`, `before CHANGE` or `after CHANGE`")
        elif side.kind == "under":
            if side.name not in library.protocols:
                say("E109", f"there is no protocol `{side.name}`", side.span, suggest(side.name, library.protocols))
        elif side.name not in library.changes:
            say("E116", f"there is no change `{side.name}`", side.span, suggest(side.name, library.changes))
        else:
            hunks = {h.target.name for h in library.changes[side.name].hunks}
            for name in side.excepted:
                if name.name not in hunks:
                    say("E117", f"`{side.name}` has no hunk `{name.name}`", name.span, suggest(name.name, hunks))


def _dispatches(block: ast.Block) -> list[ast.Dispatch]:
    found: list[ast.Dispatch] = []
    for stmt in block.body:
        match stmt:
            case ast.Dispatch():
                found.append(stmt)
            case ast.Block():
                found.extend(_dispatches(stmt))
            case ast.If(then=then, otherwise=otherwise):
                found.extend(_dispatches(then))
                found.extend(_dispatches(otherwise) if otherwise else [])
            case ast.For(body=body) | ast.While(body=body) | ast.With(body=body):
                found.extend(_dispatches(body))
            case ast.Choose(branches=branches):
                for branch in branches:
                    found.extend(_dispatches(branch))
    return found


def diagnostics_of(library: Library) -> tuple[Diagnostic, ...]:
    """The findings of ``check`` as values."""
    try:
        check(library)
    except InputError as error:
        return error.diagnostics
    return ()
