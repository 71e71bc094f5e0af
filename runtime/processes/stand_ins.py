"""Stand-ins for parts of a large package: modules that are loaded only when something is asked of them.

While the package is imported, a stand-in answers every question with a `Later`, which is enough for the code that
runs then: annotations, base classes, decorators, and tests of what is available, which it answers with no. From
then on, the first question loads every part that was left out, into the same module objects and in the order in
which the package imports them, and nothing is left out any more. A `Later` that was kept asks the real object.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from importlib import import_module
from importlib.abc import Loader
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any


def _nothing(*args: object) -> None:
    """Do nothing."""


class StandIns:
    """The finder of one package, for `sys.meta_path`.

    Args:
        package: its name.
        left_out: full names of the modules that are left out, with all below them.
        others: the same of modules of other packages. Each of these is loaded alone, when it is used.
        kept: full names of modules among these that are loaded all the same, when the rest of the package is.
        compared: full names of objects that are asked for only to compare the classes of others with them.
        on_whole: called with the name of what was asked for, before all is loaded.
        before: called with the package's folders, before it is loaded.
        after: called when it is loaded.
    """

    def __init__(
        self,
        package: str,
        *,
        left_out: Sequence[str],
        others: Sequence[str] = (),
        kept: Sequence[str] = (),
        compared: Sequence[str] = (),
        on_whole: Callable[[str], None],
        before: Callable[[Sequence[str]], None] = _nothing,
        after: Callable[[], None] = _nothing,
    ) -> None:
        self._package = package
        self._left_out = frozenset(left_out)
        self._others = frozenset(others)
        self._kept = frozenset(kept)
        self.compared = frozenset(compared)
        self._on_whole = on_whole
        self._before = before
        self._after = after
        self._made: list[_StandIn] = []
        self._lock = threading.RLock()
        self.loading = False
        self.whole = False

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: object = None) -> ModuleSpec | None:
        """Return a spec of ours for the package itself and for what is left out; see `importlib.abc`."""
        if name == self._package:
            return self._found(name, path, _PackageLoader(self))
        if self.loading and not self._others.isdisjoint(_and_above(name)):
            return self._found(name, path, _StandInLoader(self))
        if not self._is_left_out(name):
            return None
        if self.loading:
            return self._found(name, path, _StandInLoader(self))
        self.load_whole(name)
        parent = sys.modules.get(name.rpartition(".")[0])
        if isinstance(parent, _StandIn):
            self.execute(parent)
        already = sys.modules.get(name)
        if already is None:
            return None
        # importlib goes by the spec that the module has now, and with its own would execute it a second time.
        already.__spec__ = ModuleSpec(name, _LoadedLoader(already))
        return already.__spec__

    def _is_left_out(self, name: str) -> bool:
        return not self._left_out.isdisjoint(_and_above(name))

    def _found(self, name: str, path: Sequence[str] | None, loader: Loader) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path)
        if spec is not None:
            spec.loader_state, spec.loader = spec.loader, loader
        return spec

    def begin(self, folders: Sequence[str]) -> None:
        """Begin to load the package, which is in these folders."""
        self._before(folders)
        self.loading = True

    def end(self) -> None:
        """The package is loaded, but for what is kept."""
        for name in self._kept:
            with suppress(ModuleNotFoundError):  # in this version of the package
                self.execute(import_module(name))
        self.loading = False
        self._after()

    def stand_in(self, module: _StandIn) -> None:
        """Keep a stand-in, to load it in its turn."""
        self._made.append(module)

    def load(self, module: str, name: str) -> ModuleType:
        """Load what is left out because `name` of `module` is used, and return the module."""
        stand_in = sys.modules[module]
        if self._others.isdisjoint(_and_above(module)):
            self.load_whole(f"{module}.{name}")
        self.execute(stand_in)
        return stand_in

    def load_whole(self, wanted: str) -> None:
        """Load all that was left out, because `wanted` was asked for."""
        with self._lock:
            if self.whole:
                return
            self._on_whole(wanted)
            self.whole = True
            for module in self._made:
                if self._is_left_out(module.__name__):
                    self.execute(module)

    def execute(self, module: ModuleType) -> None:
        """Load a stand-in's module into it, unless that was done."""
        with self._lock:
            if isinstance(module, _StandIn):
                _execute(module)


class _StandIn(ModuleType):
    """A module that is not loaded."""

    def __getattr__(self, name: str) -> Any:
        loader = self.__loader__
        assert isinstance(loader, _StandInLoader)
        finder, own = loader.finder, self.__name__
        if not finder.loading and f"{own}.{name}" not in finder.compared:
            return getattr(finder.load(own, name), name)
        if name.startswith("__"):  # importlib asks for them
            raise AttributeError(f"{own} has no {name} yet")
        return Later(finder, own, name)


class Later:
    """An object of a module that is not loaded, which will be asked for when something depends on it.

    Args:
        finder: that of its package.
        module: the full name of its module.
        path: its name in the module, with dots.
    """

    def __init__(self, finder: StandIns, module: str, path: str) -> None:
        self._finder = finder
        self._module = module
        self._path = path

    def _real(self) -> Any:
        found: Any = self._finder.load(self._module, self._path)
        for name in self._path.split("."):
            found = getattr(found, name)
        return found

    def _is_loaded(self) -> bool:
        return not isinstance(sys.modules[self._module], _StandIn)

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Call the real object; while the package is loaded, be a decorator that changes nothing, or make one."""
        if not self._finder.loading:
            return self._real()(*args, **options)
        return args[0] if len(args) == 1 and callable(args[0]) and not options else self

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if self._finder.loading:
            return Later(self._finder, self._module, f"{self._path}.{name}")
        return getattr(self._real(), name)

    def __bool__(self) -> bool:
        """No: what is left out is not available."""
        return False if self._finder.loading else bool(self._real())

    def __iter__(self) -> Iterator[Any]:
        return iter(()) if self._finder.loading else iter(self._real())

    def __getitem__(self, key: Any) -> Any:
        return self if self._finder.loading else self._real()[key]

    def __contains__(self, key: object) -> bool:
        return not self._finder.loading and key in self._real()

    def __instancecheck__(self, instance: object) -> bool:
        """No instance can exist before its class is loaded."""
        return self._is_loaded() and isinstance(instance, self._real())

    def __subclasscheck__(self, subclass: type) -> bool:
        return self._is_loaded() and issubclass(subclass, self._real())

    def __mro_entries__(self, bases: tuple[object, ...]) -> tuple[type, ...]:
        """Add nothing to the classes that derive from it."""
        return () if self._finder.loading else (self._real(),)

    def __or__(self, other: object) -> Later:
        """Stand for the union in an annotation."""
        return self

    __ror__ = __or__


class _PackageLoader(Loader):
    """Loads the package itself, with stand-ins."""

    def __init__(self, finder: StandIns) -> None:
        self._finder = finder

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        self._finder.begin(list(getattr(module, "__path__", ())))
        _execute(module)
        self._finder.end()


class _StandInLoader(Loader):
    """Makes a stand-in; the real loader waits in the spec's `loader_state`."""

    def __init__(self, finder: StandIns) -> None:
        self.finder = finder

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return _StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        assert isinstance(module, _StandIn)
        self.finder.stand_in(module)


class _LoadedLoader(Loader):
    """Gives importlib a module that its parent has imported in the meantime."""

    def __init__(self, module: ModuleType) -> None:
        self._module = module
        self._spec = module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec


def _execute(module: ModuleType) -> None:
    """Load `module` by its real loader, as if there were no other."""
    spec = module.__spec__
    assert spec is not None
    loader: Loader = spec.loader_state
    module.__class__ = ModuleType
    spec.loader = module.__loader__ = loader
    spec.loader_state = None
    loader.exec_module(module)


def _and_above(name: str) -> Iterator[str]:
    while name:
        yield name
        name = name.rpartition(".")[0]
