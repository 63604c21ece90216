"""Other solvers than the one that found the proof, asked for a second opinion on plain SMT-LIB text."""

from __future__ import annotations

from mmucheck.engines.solver import Limits

SOLVERS = ("z3", "cvc5")


class SolverMissing(Exception):
    """The solver asked for is not installed."""


def decide_text(text: str, solver: str, limits: Limits) -> str:
    """sat, unsat or unknown for a script that ends in one check-sat. Raises SolverMissing."""
    return {"z3": _z3, "cvc5": _cvc5}[solver](text, limits)


def _z3(text: str, limits: Limits) -> str:
    from mmucheck.engines.solver import decide_script

    return decide_script(text, limits)


def _cvc5(text: str, limits: Limits) -> str:
    """Ways of the solver take turns: what one does not decide in minutes is often a matter of seconds for the other."""
    try:
        import cvc5
    except ImportError:
        raise SolverMissing("cvc5 is not installed: pip install 'mmucheck[cvc5]'") from None
    for way, seconds in (("bitblast", 5.0), ("bitblast-internal", 20.0), ("bitblast", 0.0)):
        terms = cvc5.TermManager()
        solver = cvc5.Solver(terms)
        solver.setOption("bv-solver", way)
        allowed = min(filter(None, (seconds, limits.timeout)), default=0.0)
        if allowed:
            solver.setOption("tlimit-per", str(max(1, int(allowed * 1000))))
        parser = cvc5.InputParser(solver)
        parser.setStringInput(cvc5.InputLanguage.SMT_LIB_2_6, text, "certificate")
        while not (command := parser.nextCommand()).isNull():
            said = str(command.invoke(solver, parser.getSymbolManager())).strip()
            if said in ("sat", "unsat"):
                return said
    return "unknown"
