"""Reading pickles that strangers made, without running them.

A pickle is a program, and a stranger's may do anything when it is loaded. This unpickler knows the
names that its caller lists, and refuses any other unread; and what a name stands for may be called
and not altered.
"""

import pickle
from collections.abc import Callable, Mapping
from typing import IO, Any, ClassVar


class RefusedError(Exception):
    """A pickle that asks for more than plain data."""


class StandIn:
    """What a pickle may hold and not alter: BUILD meets `__setstate__`."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        raise RefusedError(f"it changes {type(self).__name__.strip('_')}")


class _Function(StandIn):
    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]):
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)


class SafeUnpickler(pickle._Unpickler):
    """An unpickler that knows some names and nothing else.

    The one in Python, whose memo is a dictionary: that in C fills an array as long as the largest
    index that a pickle names, so that ten bytes can ask for all memory.

    Args:
      file: the pickle.
      known: what stands for each (module, name).
      encoding: as `pickle.Unpickler` takes it.
    """

    refusal = "it asks for {}"

    def __init__(self, file: IO[bytes], known: Mapping[tuple[str, str], Any], *, encoding: str):
        super().__init__(file, encoding=encoding)
        self._known = known

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a name.

        Args:
          module: as the pickle has it.
          name: in the module.

        Returns:
          The value of `known`, a function as one that may be called and not altered.

        Raises:
          RefusedError: an unknown name; nothing of it is imported.
        """
        if (module, name) not in self._known:
            raise RefusedError(self.refusal.format(f"{module}.{name}"))
        found = self._known[module, name]
        return _Function(found) if callable(found) else found

    def persistent_load(self, reference: Any) -> Any:
        """Returns what lies outside the pickle: nothing, unless a subclass knows it."""
        raise RefusedError("it refers to objects outside itself")

    def load_bytearray8(self: Any) -> None:
        """Reads as many bytes as there are; Python's own makes room for as many as are claimed."""
        self.append(bytearray(self.read(int.from_bytes(self.read(8), "little"))))

    dispatch: ClassVar[dict[int, Any]] = {
        **pickle._Unpickler.dispatch,
        pickle.BYTEARRAY8[0]: load_bytearray8,
    }
