"""The registry: what may be registered, that registering leaves the class itself alone, and the listing."""

import importlib
import pickle
import pkgutil
from abc import abstractmethod
from typing import ClassVar, Literal

import attrs
import pytest
from attrs.validators import ge

import harness
import spinrl
from spinrl.config.fields import fields_of
from spinrl.config.listing import field_docs, format_registry
from spinrl.config.registry import Component, component_names, components, find, register
from spinrl.config.serialize import summary


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


def test_abstract_components_do_not_build():
    with pytest.raises(TypeError, match="abstract"):
        WithMast()


def test_a_class_is_found_by_kind_and_selector():
    assert components()["test_boat"]["Dinghy"] is Dinghy
    assert find("Dinghy") is find("test_boat.Dinghy") is find("spinrl.test_boat.Dinghy") is Dinghy
    assert find("policy.Dinghy") is find("x.spinrl.test_boat.Dinghy") is find("Dingy") is None
    assert {"Dinghy", "Schooner"} <= set(component_names())


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
    text = format_registry(width=80)
    assert (
        "TEST_BOAT\n\n@Dinghy()  A small boat.\n"
        "    Dinghy.masts = 1\n        an int at least 1: how many stand.\n"
        "    Dinghy.paint = required\n"
        "        one of 'red', 'blue': its colour, which may take two lines: like this.\n"
        "    Dinghy.tender = None\n"
        "        a test_boat (one of @Dinghy(), @Schooner()), or None: carried on board.\n"
        "    Dinghy.oars = (2,)\n        a list, each an int: in pairs.\n\n"
    ) in text
    assert "Schooner.tender = Dinghy(masts=1, paint='red'" in text
    assert max(map(len, text.splitlines())) <= 80


def test_every_registered_component_documents_every_field():
    for package in (spinrl, harness):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    every = [cls for known in components().values() for cls in known.values()]
    undocumented = [
        f"{cls.__name__}.{name}" for cls in every for name in fields_of(cls).keys() - field_docs(cls).keys()
    ]
    assert undocumented == []
    assert [cls for cls in every if not summary(cls)] == []
