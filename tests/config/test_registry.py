"""The registry: what may be registered, that registering leaves the class itself alone, and the listing."""

import importlib
import pickle
import pkgutil
from abc import abstractmethod
from typing import ClassVar, Literal

import attrs
import gin
import pytest
from attrs.validators import ge

import harness
import spinrl
from spinrl.config.listing import describe_registry, format_registry
from spinrl.config.registry import Component, component_names, components, find, lookup, register


class Boat(Component):
    kind: ClassVar[str] = "test_boat"

    @abstractmethod
    def build(self) -> str: ...


@attrs.frozen(kw_only=True)
class WithMast(Boat):
    """Not registered itself.

    Attributes:
        masts: how many stand.
    """

    masts: int = attrs.field(default=1, validator=ge(1))


@attrs.frozen(kw_only=True)
class Dinghy(WithMast):
    """A small boat.

    Attributes:
        paint: its colour, which
            may take two lines: like this.
        tender (Boat): carried on board.
        oars: in pairs.
    """

    paint: Literal["red", "blue"]
    tender: Boat | None = None
    oars: tuple[int, ...] = (2,)

    def build(self) -> str:
        return f"{self.paint} with {self.masts}"


ReturnedDinghy = register(Dinghy)


@register
@attrs.frozen(kw_only=True)
class Schooner(WithMast):
    """A large boat.

    Attributes:
        tender: carried on board.
    """

    tender: Boat = Dinghy(paint="red")

    def build(self) -> str:
        return "schooner"


def test_registering_gives_the_class_itself_which_stays_plain():
    assert ReturnedDinghy is Dinghy
    boat = Schooner(masts=2)
    assert type(boat) is Schooner and isinstance(boat, Boat) and boat == Schooner(masts=2) != Schooner()
    assert hash(boat) == hash(Schooner(masts=2))
    again = pickle.loads(pickle.dumps(boat))
    assert again == boat and type(again) is Schooner
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        boat.masts = 3
    gin.bind_parameter("Schooner.masts", 9)
    try:
        assert Schooner().masts == 1
        assert gin.get_configurable("test_boat.Schooner")() == Schooner(masts=9)
        assert type(gin.get_configurable("Schooner")()) is Schooner
    finally:
        gin.clear_config()


def test_abstract_components_do_not_build():
    with pytest.raises(TypeError, match="abstract"):
        WithMast()


def test_lookup_by_kind_and_selector():
    assert lookup("test_boat", "Dinghy") is components()["test_boat"]["Dinghy"] is Dinghy
    assert find("Dinghy") is find("test_boat.Dinghy") is find("spinrl.test_boat.Dinghy") is Dinghy
    assert find("policy.Dinghy") is find("x.spinrl.test_boat.Dinghy") is find("Dingy") is None
    assert {"Dinghy", "Schooner"} <= set(component_names())
    with pytest.raises(KeyError, match=r"no test_boat is called 'Dingy'.*did you mean Dinghy\?"):
        lookup("test_boat", "Dingy")
    with pytest.raises(KeyError, match="registered: none"):
        lookup("test_plane", "Dinghy")


def test_a_second_class_of_a_name_is_refused_whatever_its_kind():
    namespace = {"__doc__": "Another.", "kind": "test_plane", "__annotations__": {}}
    other = attrs.frozen(kw_only=True)(type("Dinghy", (Component,), namespace))
    with pytest.raises(ValueError, match=f"Dinghy is already registered, as test_boat by {Dinghy.__module__}"):
        register(other)
    assert "test_plane" not in components()


class NoKind(Component):
    """Has no kind."""


class NoDoc(Boat):
    pass


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (attrs.frozen(kw_only=True)(type("NotAComponent", (), {"__doc__": "x"})), "attrs class and a Component"),
        (type("NotAttrs", (Boat,), {"__doc__": "x"}), "attrs class and a Component"),
        (attrs.make_class("Mutable", {"x": attrs.field(validator=ge(0))}, bases=(Boat,), kw_only=True), "frozen"),
        (attrs.make_class("Positional", {"x": attrs.field(default=1)}, bases=(Boat,), frozen=True), "kw_only"),
        (attrs.frozen(kw_only=True)(NoKind), "a kind"),
        (attrs.frozen(kw_only=True)(NoDoc), "a docstring"),
        (lambda: None, "attrs class and a Component"),
    ],
)
def test_what_is_not_a_component_is_refused(cls, message):
    before = component_names()
    with pytest.raises(TypeError, match=message):
        register(cls)
    assert component_names() == before


def test_the_listing_gives_type_default_and_docstring_of_every_field():
    records = {record.name: record for record in describe_registry()}
    dinghy = {field.name: field for field in records["Dinghy"].fields}
    assert records["Dinghy"].summary == "A small boat." and records["Dinghy"].kind == "test_boat"
    assert [(each.name, each.type, each.default, each.doc) for each in dinghy.values()] == [
        ("masts", "an int at least 1", "1", "how many stand."),
        ("paint", "one of 'red', 'blue'", "required", "its colour, which may take two lines: like this."),
        ("tender", "a test_boat (one of @Dinghy(), @Schooner()), or None", "None", "carried on board."),
        ("oars", "a list, each an int", "(2,)", "in pairs."),
    ]
    assert "paint='red'" in {field.name: field for field in records["Schooner"].fields}["tender"].default
    text = format_registry(width=80)
    assert "TEST_BOAT\n\n@Dinghy()  A small boat.\n    Dinghy.masts = 1\n" in text
    assert max(map(len, text.splitlines())) <= 80


def test_every_registered_component_documents_every_field():
    for package in (spinrl, harness):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    undocumented = [
        f"{record.name}.{field.name}" for record in describe_registry() for field in record.fields if not field.doc
    ]
    assert undocumented == []
    assert [record.name for record in describe_registry() if not record.summary] == []
