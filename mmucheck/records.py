"""Frozen dataclasses that cost nothing to declare.

``dataclass(frozen=True)`` writes and compiles six functions for every class; with some hundred classes that is a fourth of the time of
a short run. ``record`` makes the same of a class (fields, replace, equality and hash by value, a repr, no assignment) with functions
that look at the fields. It is a dataclass to everybody who asks.
"""

from __future__ import annotations

from dataclasses import MISSING, Field, FrozenInstanceError, dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform
else:

    def dataclass_transform(**_: object) -> Any:
        return lambda decorator: decorator


T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def record(cls: type[T]) -> type[T]:
    """The class as a frozen dataclass: positional or named arguments, defaults, default factories, inherited fields first."""
    cls.__doc__ = cls.__doc__ or cls.__name__  # else dataclass() would spell out a signature
    made: Any = cls
    names, defaults = _declared(cls)
    made.__dataclass_fields__ = _Fields(cls)
    made.__match_args__ = names  # type: ignore[misc]
    count = len(names)

    def initialise(self: Any, *values: Any, **named: Any) -> None:
        if len(values) == count and not named:
            self.__dict__.update(zip(names, values, strict=True))
            return
        given = dict(zip(names, values, strict=False)) | named
        if len(values) > count or len(given) != len(values) + len(named) or not given.keys() <= set(names):
            raise TypeError(f"{made.__name__}() takes {', '.join(names)}")
        for name in names:
            if name in given:
                self.__dict__[name] = given[name]
            elif name not in defaults:
                raise TypeError(f"{made.__name__}() misses `{name}`")
            else:
                default: Any = defaults[name]
                self.__dict__[name] = default.default if default.default is not MISSING else default.default_factory()

    def equal(self: Any, other: Any) -> Any:
        return self.__dict__ == other.__dict__ if other.__class__ is self.__class__ else NotImplemented

    def digest(self: Any) -> int:
        return hash(tuple(self.__dict__.values()))

    made.__init__ = initialise
    made.__setattr__, made.__delattr__ = _refuse, _refuse
    made.__repr__ = made.__dict__.get("__repr__", _shown)
    if "__eq__" not in made.__dict__:
        made.__eq__ = equal
        made.__hash__ = made.__dict__.get("__hash__") or digest
    result: type[T] = made
    return result


_DECLARED = "__record_declared__"


def _declared(cls: type) -> tuple[tuple[str, ...], dict[str, Any]]:
    """The names of the fields, inherited ones first, and the defaults of those that have one; kept for what is derived from the class."""
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__[1:]):
        found |= base.__dict__.get(_DECLARED, {})
    for name in cls.__annotations__:
        default = cls.__dict__.get(name, found.get(name, MISSING))
        found[name] = default if default is MISSING or isinstance(default, Field) else field(default=default)
    setattr(cls, _DECLARED, found)
    return tuple(found), {name: default for name, default in found.items() if default is not MISSING}


class _Fields:
    """Makes a dataclass of a record when somebody asks for its fields, which few records are in one run."""

    def __init__(self, cls: type) -> None:
        self._cls = cls

    def __get__(self, instance: object, owner: type) -> Any:
        del self._cls.__dataclass_fields__  # type: ignore[attr-defined]
        made: Any = dataclass(init=False, repr=False, eq=False)(self._cls)
        return made.__dataclass_fields__


def _refuse(self: object, name: str, value: object = None) -> NoReturn:
    raise FrozenInstanceError(f"{type(self).__name__}.{name} cannot be changed")


def _shown(self: Any) -> str:
    return f"{type(self).__qualname__}({', '.join(f'{k}={v!r}' for k, v in self.__dict__.items())})"
