"""Folding and case splitting must not change what a term means."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from mmucheck.machine.domain import BOOL, Concrete, fold
from mmucheck.machine.terms import Term, Terms, evaluate, postorder

WIDTH = 8
NAMES = ["x", "y", "z"]
FLAGS = ["p", "q", "r"]
OPS = ["add", "sub", "mul", "and", "or", "xor", "shl", "lshr", "udiv", "urem"]

numbers = st.deferred(
    lambda: st.one_of(
        st.tuples(st.just("const"), st.integers(0, 255)),
        st.tuples(st.just("var"), st.sampled_from(NAMES)),
        st.tuples(st.just("op"), st.sampled_from(OPS), numbers, numbers),
        st.tuples(st.just("ite"), conditions, numbers, numbers),
    )
)
conditions = st.deferred(
    lambda: st.one_of(
        st.tuples(st.just("flag"), st.sampled_from(FLAGS)),
        st.tuples(st.just("not"), conditions),
        st.tuples(st.sampled_from(["and", "or"]), conditions, conditions),
        st.tuples(st.sampled_from(["eq", "ult", "ule"]), numbers, numbers),
        st.tuples(st.just("cite"), conditions, conditions, conditions),
    )
)
models = st.fixed_dictionaries({**{n: st.integers(0, 255) for n in NAMES}, **{f: st.integers(0, 1) for f in FLAGS}})


def build(terms: Terms, tree: tuple) -> Term:
    kind, *rest = tree
    if kind == "const":
        return terms.const(rest[0], WIDTH)
    if kind == "var":
        return terms.var(rest[0], WIDTH)
    if kind == "flag":
        return terms.var(rest[0], BOOL)
    if kind == "op":
        return terms.binary(rest[0], build(terms, rest[1]), build(terms, rest[2]))
    parts = [build(terms, r) for r in rest]
    if kind in ("ite", "cite"):
        return terms.ite(*parts)
    return {"not": terms.not_, "and": terms.and_, "or": terms.or_, "eq": terms.eq, "ult": terms.ult, "ule": terms.ule}[kind](*parts)


def meaning(tree: tuple, model: dict[str, int]) -> int:
    kind, *rest = tree
    if kind == "const":
        return rest[0]
    if kind in ("var", "flag"):
        return model[rest[0]]
    if kind == "op":
        return fold(rest[0], meaning(rest[1], model), meaning(rest[2], model), WIDTH)
    values = [meaning(r, model) for r in rest]
    if kind in ("ite", "cite"):
        return values[1] if values[0] else values[2]
    if kind == "not":
        return int(not values[0])
    a, b = values
    return int({"and": a and b, "or": a or b, "eq": a == b, "ult": a < b, "ule": a <= b}[kind])


@settings(max_examples=150, deadline=None)
@given(conditions, models)
def test_folding_keeps_the_meaning(tree: tuple, model: dict[str, int]) -> None:
    terms = Terms()
    assert evaluate([build(terms, tree)], model)[0] == bool(meaning(tree, model))


@settings(max_examples=100, deadline=None)
@given(numbers, models)
def test_known_zero_bits_are_zero(tree: tuple, model: dict[str, int]) -> None:
    term = build(Terms(), tree)
    assert evaluate([term], model)[0] % (1 << min(term.zeros, WIDTH)) == 0


@settings(max_examples=100, deadline=None)
@given(numbers, models)
def test_cases_are_exclusive_and_complete(tree: tuple, model: dict[str, int]) -> None:
    terms = Terms()
    term = build(terms, tree)
    cases = terms.cases(term)
    if cases is not None:
        holding = [value for value, condition in cases if evaluate([condition], model)[0]]
        assert holding == evaluate([term], model)


@settings(max_examples=100, deadline=None)
@given(conditions, models, models)
def test_substitution_is_evaluation_in_steps(tree: tuple, model: dict[str, int], other: dict[str, int]) -> None:
    terms = Terms()
    term = build(terms, tree)
    fixed = {v: terms.const(model[v.name], v.sort) for v in postorder([term]) if v.op == "var" and v.name in ("x", "p")}
    replaced = terms.substitute([term], fixed)[0]
    mixed = {**other, "x": model["x"], "p": model["p"]}
    assert evaluate([replaced], mixed) == evaluate([term], mixed)


@given(st.sampled_from(OPS), st.integers(0, (1 << 64) - 1), st.integers(0, (1 << 64) - 1))
def test_both_domains_compute_alike(op: str, a: int, b: int) -> None:
    terms = Terms()
    assert terms.binary(op, terms.const(a, 64), terms.const(b, 64)).value == Concrete().binary(op, a, b)


def test_a_comparison_that_cannot_come_out_another_way_is_none() -> None:
    """The key of a slot that may still hold what was looked at before: a chain of choices of the same page."""
    terms = Terms()
    page = terms.aligned(terms.var("x", WIDTH), 4)
    assert terms.eq(page, terms.const(255, WIDTH)) is terms.false
    assert terms.eq(page, terms.const(240, WIDTH)) is not terms.false
    key = terms.const(255, WIDTH)
    for name in FLAGS:
        key = terms.ite(terms.var(name, BOOL), page, key)
    held = terms.eq(key, page)
    assert held is terms.eq(page, key)
    assert {t.op for t in postorder([held])} == {"var", "or"}


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(conditions, st.one_of(numbers, st.none()), st.booleans()), max_size=4), numbers, st.integers(0, 5), models)
def test_comparing_with_a_choice_keeps_the_meaning(chain: list, tree: tuple, bits: int, model: dict[str, int]) -> None:
    """``None`` in the chain is the number itself: what comparisons fold."""
    terms = Terms()
    number = terms.aligned(build(terms, tree), bits)
    value = meaning(tree, model) >> bits << bits
    chosen, meant = terms.const(255, WIDTH), 255
    for condition, other, first in chain:
        option = number if other is None else build(terms, other)
        says = value if other is None else meaning(other, model)
        holds = meaning(condition, model)
        chosen = terms.ite(build(terms, condition), option, chosen) if first else terms.ite(build(terms, condition), chosen, option)
        meant = (says if holds else meant) if first else (meant if holds else says)
    assert evaluate([terms.eq(chosen, number), terms.eq(number, chosen)], model) == [meant == value] * 2
