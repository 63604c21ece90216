"""Terms as SMT-LIB 2 text, for any solver. Shared terms get a name once; nothing is written twice."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mmucheck.machine.domain import BOOL
from mmucheck.machine.terms import Term, postorder

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.@/~!$%^&*+<>?-")


def symbol(name: str) -> str:
    """A name as an SMT-LIB symbol."""
    return name if name and set(name) <= _PLAIN and not name[0].isdigit() else f"|{name}|"


def sort(width: int) -> str:
    return "Bool" if width == BOOL else f"(_ BitVec {width})"


def constant(term: Term) -> str:
    if term.sort == BOOL:
        return "true" if term.value else "false"
    return f"(_ bv{term.value} {term.sort})"


def bit(name: str, index: int) -> str:
    """The boolean that stands for one bit of a variable in a script made with ``bits``."""
    return f"{name}#{index}"


def script(assertions: Iterable[Term], named: Sequence[tuple[str, Term]] = (), defined: Sequence[tuple[str, Term]] = (),
           bits: bool = False) -> str:  # fmt: skip
    """Declarations, definitions and assertions. ``named``: booleans declared under the name and asserted to imply their term, for
    use as assumptions; ``defined``: the same with equivalence; ``bits``: every bit of a bit-vector variable is a boolean."""
    assertions = list(assertions)
    roots = [*assertions, *(t for _, t in (*named, *defined))]
    order = postorder(roots)
    uses: dict[int, int] = {}
    for term in order:
        for arg in term.args:
            uses[arg.index] = uses.get(arg.index, 0) + 1
    for root in roots:
        uses[root.index] = uses.get(root.index, 0) + 1
    lines: list[str] = []
    text: dict[int, str] = {}
    names = 0
    for term in order:
        if term.op == "const":
            text[term.index] = constant(term)
        elif term.op == "var":
            text[term.index] = symbol(term.name)
            if bits and term.sort != BOOL:
                bools = [symbol(bit(term.name, i)) for i in reversed(range(term.sort))]
                lines.extend(f"(declare-fun {n} () Bool)" for n in bools)
                parts = " ".join(f"(ite {n} #b1 #b0)" for n in bools)
                lines.append(f"(define-fun {text[term.index]} () {sort(term.sort)} (concat {parts}))")
            else:
                lines.append(f"(declare-fun {text[term.index]} () {sort(term.sort)})")
        else:
            body = f"({term.op} {' '.join(text[a.index] for a in term.args)})"
            if uses[term.index] > 1 or len(body) > 400:
                names += 1
                name = f"?{names}"
                lines.append(f"(define-fun {name} () {sort(term.sort)} {body})")
                text[term.index] = name
            else:
                text[term.index] = body
    lines.extend(f"(assert {text[a.index]})" for a in assertions)
    for op, group in (("=>", named), ("=", defined)):
        for name, term in group:
            lines.append(f"(declare-fun {symbol(name)} () Bool)")
            lines.append(f"(assert ({op} {symbol(name)} {text[term.index]}))")
    return "\n".join(lines) + "\n"
