import importlib
import sys
from types import ModuleType, SimpleNamespace

import pytest

from edge_trgl.runtime.processes.stand_ins import Later, StandIns

FILES = {
    "__init__": """
        from NAME import needed
        from NAME.far import far as far
        import NAME.traced
        finished = True
    """,
    "needed": """
        from typing import Optional, Union
        from NAME.heavy import Kind, decorated, options
        from NAME.heavy.parts import is_available, Base
        from NAME.heavy.parts import *
        import NAME.heavy.deep as deep

        def function(value: Optional[Kind], more: Kind | None = None) -> Union[Kind, int]:
            return isinstance(value, Kind)

        @decorated
        def plain(): return "plain"

        @decorated(1, name="a")
        def with_options(): return "with options"

        class Derived(Base): pass

        available = "yes" if is_available() else "no"
        loops = [one for one in options.names]
        has = "a" in options.names

        def make(): return Kind()
        def look(): return deep.VALUE
    """,
    "heavy/__init__": """
        from NAME.heavy import parts, deep, own
        class Kind: pass
        def decorated(*args, **named): return args[0]
        class options: names = ["a"]
    """,
    "heavy/parts": """
        import NAME
        assert NAME.finished
        class Base: pass
        def is_available(): return True
        __all__ = ["exported"]
        exported = 1
    """,
    "heavy/deep": "VALUE = 'deep'",
    "heavy/never_imported": "from NAME.heavy import Kind\nOWN = Kind()",
    "heavy/own": "class Own: pass",
    "heavy/kept": "from NAME.heavy import Kind\ndef kept(): return 'kept'",
    "far/__init__": "far = 'far'\nfrom NAME.far.inner import inner",
    "far/inner": "inner = 'inner'",
    "traced": "def on_its_own(): return 1",
}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of a name of its own, and what its finder told."""
    name = f"package_{abs(hash(tmp_path))}"
    for file, text in FILES.items():
        path = tmp_path / name / f"{file}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = text.replace("NAME", name).splitlines()
        indent = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
        path.write_text("\n".join(line[indent:] for line in lines))
    monkeypatch.syspath_prepend(str(tmp_path))
    told = []
    finder = StandIns(
        name,
        left_out=(f"{name}.heavy", f"{name}.far.inner"),
        kept=(f"{name}.heavy.kept", f"{name}.heavy.not_in_this_version"),
        compared=(f"{name}.heavy.Kind",),
        on_whole=told.append,
        before=lambda folders: told.append(folders),
        after=lambda: told.append("loaded"),
    )
    monkeypatch.setattr(sys, "meta_path", [finder, *sys.meta_path])
    module = importlib.import_module(name)
    folders = [str(tmp_path / name)]
    assert told == [folders, "loaded"]
    told.clear()
    yield SimpleNamespace(name=name, module=module, needed=module.needed, told=told)
    for loaded in [loaded for loaded in sys.modules if loaded.partition(".")[0] == name]:
        del sys.modules[loaded]


def is_loaded(package, module):
    return type(sys.modules[f"{package.name}.{module}"]) is ModuleType


def test_nothing_of_it_is_loaded(package):
    assert not any(is_loaded(package, module) for module in ("heavy", "heavy.parts", "heavy.deep"))
    assert isinstance(package.needed.Kind, Later)
    assert package.told == []


def test_what_ran_while_the_package_was_loaded(package):
    needed = package.needed
    assert (needed.plain(), needed.available, needed.loops, needed.has) == ("plain", "no", [], False)
    assert needed.Derived.__mro__ == (needed.Derived, object)
    assert not hasattr(needed, "exported")
    assert package.told == []


def test_no_instance_exists_before_its_class(package):
    assert package.needed.function(3) is False
    assert package.told == []


def test_a_class_to_compare_with(package):
    heavy = sys.modules[f"{package.name}.heavy"]
    assert not isinstance(3, (heavy.Kind, str))
    assert not issubclass(int, heavy.Kind)
    assert package.told == []
    kind = heavy.Kind
    instance = kind()
    assert isinstance(instance, kind)
    assert type(instance) is heavy.Kind
    assert len(package.told) == 1


@pytest.mark.parametrize(
    ("ask", "told"),
    [
        (lambda package: package.needed.make(), "heavy.Kind"),
        (lambda package: package.needed.look(), "heavy.deep.VALUE"),
        (lambda package: package.needed.Kind.__call__(), "heavy.Kind"),
        (lambda package: importlib.import_module(f"{package.name}.heavy").options, "heavy.options"),
        (lambda package: importlib.import_module(f"{package.name}.heavy.never_imported"), "heavy.never_imported"),
    ],
)
def test_the_first_question_loads_all(package, ask, told):
    ask(package)
    assert package.told == [f"{package.name}.{told}"]
    assert all(is_loaded(package, module) for module in ("heavy", "heavy.parts", "heavy.deep", "far.inner"))
    heavy = sys.modules[f"{package.name}.heavy"]
    assert isinstance(package.needed.make(), heavy.Kind)
    assert package.needed.function(heavy.Kind()) is True

    class Below(package.needed.Base):
        pass

    assert issubclass(Below, heavy.parts.Base)
    assert list(package.needed.options.names) == ["a"]
    assert len(package.told) == 1


def test_a_module_is_loaded_once(package):
    never = importlib.import_module(f"{package.name}.heavy.never_imported")
    heavy = importlib.import_module(f"{package.name}.heavy")
    assert type(never.OWN) is heavy.Kind is type(package.needed.make())
    assert heavy.deep is sys.modules[f"{package.name}.heavy.deep"] is package.needed.deep


def test_a_module_that_loading_the_rest_has_imported_is_not_loaded_again(package):
    own = importlib.import_module(f"{package.name}.heavy.own")
    heavy = sys.modules[f"{package.name}.heavy"]
    assert heavy.own is own
    assert heavy.own.Own is sys.modules[f"{package.name}.heavy.own"].Own
    assert own.__spec__.name == f"{package.name}.heavy.own"
    assert own.__spec__.origin == own.__file__


def test_what_is_kept_is_loaded(package):
    assert sys.modules[f"{package.name}.heavy.kept"].kept() == "kept"
    assert sys.modules[f"{package.name}.heavy"].kept.kept() == "kept"
    assert package.told == []


def test_what_does_not_exist(package):
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module(f"{package.name}.heavy.nothing")
    with pytest.raises(AttributeError):
        _ = sys.modules[f"{package.name}.heavy"].nothing


def test_other_packages_are_left_alone(package):
    assert importlib.import_module("json.tool").__spec__.loader_state is None
    assert package.told == []


def test_modules_of_other_packages_are_loaded_one_by_one(package, tmp_path, monkeypatch):
    (tmp_path / "stranger").mkdir()
    (tmp_path / "stranger/__init__.py").write_text("def word(): return 'word'")
    (tmp_path / "stranger/inner.py").write_text("from stranger import word\nclass Inner: pass")
    (tmp_path / "host.py").write_text(
        "import stranger\nfrom stranger.inner import Inner\n"
        "def make(): return Inner()\ndef is_inner(value): return isinstance(value, Inner)\n"
    )
    told = []
    finder = StandIns("host", left_out=(), others=("stranger",), on_whole=told.append)
    monkeypatch.setattr(sys, "meta_path", [finder, *sys.meta_path])
    host = importlib.import_module("host")
    stranger, inner = sys.modules["stranger"], sys.modules["stranger.inner"]
    assert not host.is_inner(3)
    assert {type(stranger), type(inner)} != {ModuleType}
    assert stranger.word() == "word"
    assert type(stranger) is ModuleType is not type(inner)
    assert host.is_inner(host.make())
    assert type(host.make()) is inner.Inner
    assert inner.word is stranger.word
    assert told == []
    for name in ("host", "stranger", "stranger.inner"):
        monkeypatch.delitem(sys.modules, name)
