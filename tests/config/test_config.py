"""The configuration: what gin text means, every fault it can have, and the round trips of what it resolves to."""

import json
import math
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import attrs
import gin
import pytest
from attrs.validators import deep_iterable, ge, gt, in_, le, lt, min_len
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from spinrl.config import (
    ConfigError,
    add_search_path,
    dump,
    fingerprint,
    flatten,
    from_plain,
    load,
    to_plain,
)
from spinrl.config import gin_text as gin_source
from spinrl.config.registry import Component, register


class Fruit(Component):
    kind: ClassVar[str] = "test_fruit"


class Tool(Component):
    kind: ClassVar[str] = "ax_test_tool"


@register
@attrs.frozen(kw_only=True)
class Pear(Fruit):
    """A fruit with every type of field.

    Attributes:
        weight: in kilograms.
        pips: how many.
        ripe: whether to eat it.
        name: a label.
        colour: of the skin.
        origin: where it is stored.
        spots: their sizes,
            which may be none.
        prices: by currency.
        size: width and height.
        limit: may be infinite.
        grade: of the market.
        bites: even only.
    """

    weight: float = attrs.field(default=0.5, validator=[gt(0), le(1)])
    pips: int | None = attrs.field(default=None, validator=attrs.validators.optional([ge(2), le(100)]))
    ripe: bool = True
    name: str = ""
    colour: Literal["green", "yellow", "mask_tokens"] = "green"
    origin: Path | None = attrs.field(default=None)
    spots: tuple[int, ...] = attrs.field(default=(), converter=tuple, validator=deep_iterable(ge(0)))
    prices: Mapping[str, float] = attrs.field(factory=dict)
    size: tuple[float, int] = (1.0, 2)
    limit: float = attrs.field(default=math.inf, metadata={"infinite": True})
    grade: str = attrs.field(default="a", validator=in_(["a", "b"]))
    bites: int = attrs.field(default=2)

    @bites.validator
    def _check_bites(self, _attribute: attrs.Attribute, value: int) -> None:
        if value % 2:
            raise ValueError(f"bites must be even, not {value}")


@register
@attrs.frozen(kw_only=True)
class Plum(Fruit):
    """A fruit that needs a stone, and may hold another fruit.

    Attributes:
        stone: required.
        inner: another fruit.
    """

    stone: int
    inner: Fruit | None = None


@register
@attrs.frozen(kw_only=True)
class Knife(Tool):
    """Not a fruit.

    Attributes:
        length: in centimetres.
    """

    length: float = attrs.field(default=10.0, validator=[ge(0), lt(50)])


@register
@attrs.frozen(kw_only=True)
class Basket(Component):
    """The root.

    Attributes:
        first: the top fruit.
        rest: those below.
        tool: to cut with.
        by_name: by label.
        seed: of the packing.
    """

    kind: ClassVar[str] = "test_basket"
    first: Fruit = attrs.field(factory=Pear)
    rest: tuple[Fruit, ...] = attrs.field(default=(), converter=tuple)
    tool: Knife = Knife(length=12.0)
    by_name: Mapping[str, Fruit] = attrs.field(factory=dict)
    seed: int = 0


@register
@attrs.frozen(kw_only=True)
class Crate(Component):
    """A root that needs something.

    Attributes:
        fruit: required.
        labels: at least one.
    """

    kind: ClassVar[str] = "test_basket"
    fruit: Fruit
    labels: tuple[str, ...] = attrs.field(default=("a",), converter=tuple, validator=min_len(1))

    @labels.validator
    def _check_labels(self, _attribute: attrs.Attribute, value: tuple[str, ...]) -> None:
        if isinstance(self.fruit, Plum) and self.fruit.stone < len(value):
            raise ValueError("labels must be no more than the fruit's stone")


for each in (Pear, Plum, Knife, Basket, Crate):  # with gin itself too, to compare what it makes of the same text
    gin.register(each.__name__, module=f"spinrl.{each.kind}")(each)


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes files below a fresh working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(gin_source, "_SEARCH_PATH", [])

    def write(**files: str) -> None:
        for name, text in files.items():
            path = tmp_path / (name.replace("__", "/") + ".gin")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    return write


def faults(root: type, files: list[str], bindings: list[str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(root, files, bindings or [])
    assert all("\n" not in problem for problem in caught.value.problems)
    return caught.value.problems


def fault(text: str, write: Any, root: type = Basket) -> str:
    """The one problem of one file called a.gin."""
    write(a=text)
    problems = faults(root, ["a.gin"])
    assert len(problems) == 1, problems
    return problems[0]


# --- what it means -------------------------------------------------------------------------------------------


def test_includes_macros_scopes_blocks_and_overrides(write):
    write(
        main="""
include 'parts/base.gin'
WEIGHT = 0.25
Basket.first = @Pear()
Basket.rest = [@left/Plum(), @right/Plum()]
left/Plum.stone = 1
right/Plum:
    stone = 2
    inner = @Pear()
right/Pear.pips = 1e2
Basket.seed = 3
""",
        parts__base="include 'deeper.gin'\nPear.weight = 0.75\n",
        parts__deeper="Pear.weight = %WEIGHT\nPear.name = 'x'\n",
        over="test_fruit.Pear.name = 'y'",
    )
    resolved = load(Basket, ["main.gin", Path("over.gin")], ["Basket.seed=4", "left/Plum.stone = 7"])
    pear = Pear(weight=0.75, name="y")
    right = Plum(stone=2, inner=attrs.evolve(pear, pips=100))
    assert resolved.value == Basket(first=pear, rest=(Plum(stone=7), right), seed=4)
    assert type(resolved.value.rest[1].inner.pips) is int
    assert resolved.given.count("# ==== ") == 5
    assert resolved.given.index("parts/deeper.gin") < resolved.given.index("over.gin")
    assert resolved.given.endswith("# ==== command line ====\nBasket.seed=4\nleft/Plum.stone = 7\n")
    write(resolved=resolved.resolved)
    assert load(Basket, ["resolved.gin"]).value == resolved.value


def test_bindings_reach_components_that_are_defaults():
    value = load(Basket, [], ["Pear.ripe=False", "Knife.length=3"]).value
    assert value == Basket(first=Pear(ripe=False), tool=Knife(length=3.0))
    assert load(Basket, []).value == Basket()


def test_a_required_marker_may_be_overridden_and_must_be(write):
    write(a="Crate.fruit = %gin.REQUIRED")
    assert load(Crate, ["a.gin"], ["Crate.fruit=@Pear()"]).value.fruit == Pear()
    assert faults(Crate, ["a.gin"]) == [
        "a.gin:1: Crate.fruit is still %gin.REQUIRED; it must be a test_fruit (one of @Pear(), @Plum())"
    ]


def test_the_search_path_comes_last_and_one_file_may_be_included_twice(write, tmp_path):
    write(
        packaged__p="Basket.seed = 1",
        a="include 'p.gin'\ninclude 'p.gin'",
        packaged__q="Basket.seed = 2",
        q="Basket.seed = 3",
    )
    add_search_path(tmp_path / "packaged")
    assert load(Basket, ["a.gin"]).value.seed == 1
    assert load(Basket, ["a.gin", "q.gin"]).value.seed == 3


def test_values_are_converted_to_the_type_of_the_field():
    bindings = ["Pear.weight=1", "Pear.pips=1e1", "Pear.spots=[1, 2e0]", "Pear.origin='a/b'", "Pear.size=[1, 2]"]
    pear = load(Basket, [], [*bindings, "Pear.prices={'eur': 3}", "Pear.limit=-1e999"]).value.first
    assert pear == Pear(weight=1.0, pips=10, spots=(1, 2), origin=Path("a/b"), prices={"eur": 3.0}, limit=-math.inf)
    assert [type(each) for each in (pear.weight, pear.pips, pear.spots, pear.spots[1])] == [float, int, tuple, int]


def test_gin_itself_is_left_untouched_and_reads_the_dump_alike(write):
    basket = Basket(first=Plum(stone=1, inner=Pear(weight=0.1)), rest=(Pear(), Plum(stone=2)), by_name={"k": Pear()})
    before = gin.config_str()
    load(Basket, [], [dump(basket)])
    faults(Basket, [], ["Pear.weight=7"])
    assert gin.config_str() == before
    try:
        gin.parse_config(dump(basket))
        assert gin.get_configurable(Basket)() == basket
    finally:
        gin.clear_config()


def test_references_in_macros_are_scoped_as_in_gin():
    text = "FRUIT = @Plum()\nBasket.first = %FRUIT\nBasket.rest = [@Plum(), @s/Plum()]\n"
    text += "Plum.stone = 1\nFRUIT/Plum.stone = 2\ns/Plum.inner = @Pear()\ns/Pear.bites = 4\n"
    ours = load(Basket, [], [text]).value
    try:
        gin.parse_config(text)
        theirs = gin.get_configurable(Basket)()
    finally:
        gin.clear_config()
    assert ours.first == Plum(stone=2)
    assert ours == theirs


# --- every fault ---------------------------------------------------------------------------------------------

FAULTS = {
    "unknown component": ("\nPaer.weight = 1", "a.gin:2: Paer is not a registered component; did you mean Pear?"),
    "other case": ("pear.weight = 1", "a.gin:1: pear is not a registered component; did you mean Pear?"),
    "wrong module": (
        "spinrl.policy.Pear.weight = 1",
        "spinrl.policy.Pear is not a registered component; did you mean Pear?",
    ),
    "unknown field": ("Pear.wieght = 1", "a.gin:1: Pear.wieght is not a field of Pear; did you mean weight?"),
    "far field": ("Knife.zzz = 1", "a.gin:1: Knife.zzz is not a field of Knife; it has length"),
    "wrong type": ("Pear.weight = 'x'", "a.gin:1: Pear.weight must be a float above 0 and at most 1; found 'x'"),
    "bool for int": ("Basket.seed = True", "a.gin:1: Basket.seed must be an int; found True"),
    "bool for float": ("Pear.weight = True", "a.gin:1: Pear.weight must be a float above 0 and at most 1; found True"),
    "int for bool": ("Pear.ripe = 1", "a.gin:1: Pear.ripe must be True or False; found 1"),
    "float for int": ("Basket.seed = 1.5", "a.gin:1: Basket.seed must be an int; found 1.5"),
    "number for string": ("Pear.name = 3", "a.gin:1: Pear.name must be a string; found 3"),
    "none": ("Pear.name = None", "a.gin:1: Pear.name must be a string; found None"),
    "range": ("Pear.pips = 101", "a.gin:1: Pear.pips must be an int from 2 to 100, or None; found 101"),
    "half-open range": ("Knife.length = 50", "a.gin:1: Knife.length must be a float at least 0 and below 50; found 50"),
    "literal": (
        "Pear.colour = 'mask_token'",
        "a.gin:1: Pear.colour must be one of 'green', 'yellow', 'mask_tokens'; found 'mask_token'; "
        "did you mean 'mask_tokens'?",
    ),
    "choice": ("Pear.grade = 'c'", "a.gin:1: Pear.grade must be one of 'a', 'b'; found 'c'"),
    "list item": ("Pear.spots = [1, -1]", "a.gin:1: Pear.spots must be a list, each an int at least 0; found [1, -1]"),
    "not a list": ("Pear.spots = 1", "a.gin:1: Pear.spots must be a list, each an int at least 0; found 1"),
    "list length": ("Pear.size = [1]", "a.gin:1: Pear.size must be a list of 2: a float, an int; found [1]"),
    "dict value": (
        "Pear.prices = {'a': 'b'}",
        "a.gin:1: Pear.prices must be a dict, each key a string and each value a float; found {'a': 'b'}",
    ),
    "path": ("Pear.origin = 3", "a.gin:1: Pear.origin must be a path (a string), or None; found 3"),
    "not finite": (
        "Pear.weight = 1e999",
        "a.gin:1: Pear.weight must be a float above 0 and at most 1; found inf, which is not finite",
    ),
    "own validator": (
        "Pear.name = 'x'\nPear.bites = 3\nPear.ripe = True",
        "a.gin:2: Pear.bites must be an int; found 3 (bites must be even, not 3)",
    ),
    "wrong kind": (
        "Basket.first = @Knife()",
        "Basket.first must be a test_fruit (one of @Pear(), @Plum()); found @Knife(), which is an ax_test_tool",
    ),
    "reference for a value": (
        "Basket.seed = @Pear()",
        "a.gin:1: Basket.seed must be an int; found @Pear(), which is a test_fruit",
    ),
    "not called": (
        "Basket.tool = @Knife",
        "a.gin:1: Basket.tool must be an ax_test_tool (@Knife()); found @Knife, which is not called; write @Knife()",
    ),
    "name as a string": (
        "Basket.tool = 'Knife'",
        "a.gin:1: Basket.tool must be an ax_test_tool (@Knife()); found 'Knife'; write @Knife()",
    ),
    "unknown reference": (
        "Basket.first = @Paer()",
        "a.gin:1: Basket.first must be a test_fruit (one of @Pear(), @Plum()); found @Paer(), which is not registered; "
        "did you mean @Pear()?",
    ),
    "scope of a binding": (
        "Basket.first = @medium/Pear()\nmedium/Pear.pips = 2\nmediun/Pear.ripe = True",
        "a.gin:3: mediun/Pear.ripe: no reference uses the scope 'mediun', as @mediun/Pear() would; "
        "did you mean medium/Pear?",
    ),
    "scope of a reference": (
        "Basket.rest = [\n@medium/Pear(),\n@mediun/Pear()]\nmedium/Pear.pips = 2",
        "a.gin:1: Basket.rest: nothing is set in the scope 'mediun' of @mediun/Pear(); did you mean @medium/Pear()?",
    ),
    "unused macro": (
        "SEED = 1\nSEDE = 2\nBasket.seed = %SEED",
        "a.gin:2: SEDE is set as a macro, but nothing uses %SEDE; did you mean %SEED?",
    ),
    "field without component": (
        "pips = 5",
        "a.gin:1: pips is set as a macro, but nothing uses %pips; did you mean Pear.pips?",
    ),
    "undefined macro": (
        "SEED = 1\nBasket.seed = %SEED\nPear.pips = %SEDE",
        "a.gin:3: Pear.pips uses %SEDE, which is not set; did you mean %SEED?",
    ),
    "macro of a wrong type": (
        "\nSEED = 'x'\nBasket.seed = %SEED",
        "a.gin:3: Basket.seed must be an int; found 'x' (%SEED is set in a.gin:2)",
    ),
    "doubled binding": (
        "Pear.pips = 2\nPear.ripe = True\ntest_fruit.Pear.pips = 3",
        "a.gin:3: test_fruit.Pear.pips is set a second time; the first is a.gin:1",
    ),
    "doubled macro": (
        "SEED = 1\nSEED = 2\nBasket.seed = %SEED",
        "a.gin:2: SEED is set a second time; the first is a.gin:1",
    ),
    "required": ("Basket.first = @Plum()", "a.gin:1: Plum.stone is not set; it must be an int"),
    "circle": (
        "Basket.first = @Plum()\nPlum.stone = 1\nPlum.inner = @Plum()",
        "a.gin:3: components refer to each other in a circle: Plum -> Plum",
    ),
    "import": ("import os", "a.gin:1: 'import os' is not allowed: a configuration runs no code"),
    "from import": (
        "from os import path",
        "a.gin:1: 'from os import path' is not allowed: a configuration runs no code",
    ),
    "syntax": ("Pear.weight 1", "a.gin:1: gin syntax: Couldn't parse statement, expected ':' or '='."),
    "unquoted": (
        "\nPear.colour = green",
        "a.gin:2: gin syntax: 'green' is not a value (write strings in quotes, and ",
    ),
    "open bracket": ("Pear.spots = [1,", "gin syntax"),
    "unhashable key": ("Pear.prices = {[1]: 1}", "gin syntax"),
    "reference as key": ("Pear.prices = {@Pear(): 1}", "a.gin:1: Pear.prices must have plain keys in its dict"),
    "unused component": (
        "Basket.first = @Pear()\nPlum.stone = 'x'",
        "a.gin:2: Plum.stone must be an int; found 'x'",
    ),
    "missing include": (
        "\ninclude 'scale/laptp.gin'",
        "a.gin:2: include 'scale/laptp.gin': there is no such file (looked in .); did you mean 'scale/laptop.gin'?",
    ),
    "include circle": (
        "include 'a.gin'",
        "a.gin:1: include 'a.gin': files include each other in a circle: a.gin -> a.gin",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_is_one_line_with_its_place(name, write):
    text, message = FAULTS[name]
    write(scale__laptop="")
    problem = fault(text, write)
    assert problem.startswith("a.gin:") and message in problem, problem


def test_faults_of_the_command_line_show_the_option(write):
    write(a="Basket.seed = 1")
    bindings = ["Pear.wieght=1", "Basket.seed=2", "", "include 'a.gin'", "Pear.pips=1\nPear.ripe=2"]
    assert faults(Basket, ["a.gin"], bindings) == [
        "--set 'Pear.wieght=1': Pear.wieght is not a field of Pear; did you mean weight?",
        "--set '': sets nothing; give a binding such as 'IQL.expectile=0.7'",
        "--set \"include 'a.gin'\": an include stands in a gin file; give the file with --gin instead",
        "--set 'Pear.pips=1\\nPear.ripe=2': Pear.pips must be an int from 2 to 100, or None; found 1",
        "--set 'Pear.pips=1\\nPear.ripe=2': Pear.ripe must be True or False; found 2",
    ]
    assert faults(Basket, ["a.gin"], ["Basket.seed=2", "Basket.seed=3"]) == [
        "--set 'Basket.seed=3': Basket.seed is set a second time; the first is --set 'Basket.seed=2'"
    ]


def test_all_faults_come_at_once_in_order_of_file_and_line(write):
    write(a="Pear.name = 1\ninclude 'b.gin'\nPear.ripe = 1", b="\nPear.weight = 7\nPear.bites = 3")
    problems = faults(Basket, ["a.gin"], ["Pear.pips = 1"])
    assert [problem.split(": ")[0] for problem in problems] == [
        "a.gin:1",
        "a.gin:3",
        "b.gin:2",
        "b.gin:3",
        "--set 'Pear.pips = 1'",
    ]


def test_missing_and_unreadable_files_name_the_nearest(write, tmp_path):
    write(spin="Basket.seed = 1")
    (tmp_path / "binary.gin").write_bytes(b"\xff\xfe\x00")
    assert faults(Basket, ["spn.gin", "binary.gin", str(tmp_path), "a\0b", "x" * 5000])[:2] == [
        "spn.gin: there is no such file (looked in .); did you mean 'spin.gin'?",
        "binary.gin: cannot be read: not UTF-8 text",
    ]


def test_an_unset_root_field_names_the_first_file(write):
    write(a="Pear.ripe = True")
    assert faults(Crate, ["a.gin"]) == [
        "a.gin: Crate.fruit is not set; it must be a test_fruit (one of @Pear(), @Plum())"
    ]
    assert faults(Crate, [], ["Crate.labels=[]"])[-1] == (
        "--set 'Crate.labels=[]': Crate.labels must be a list with 1 or more items, each a string; found []"
    )


def test_fields_that_contradict_each_other_are_named_where_they_are_set(write):
    write(a="Crate.labels = ['a', 'b']\nCrate.fruit = @Plum()\nPlum.stone = 1")
    message = "Crate: labels must be no more than the fruit's stone"
    assert faults(Crate, ["a.gin"]) == [f"a.gin:1: {message}"]
    plain = to_plain(load(Crate, ["a.gin"], ["Plum.stone = 2"]).value)
    plain["fields"]["fruit"]["fields"]["stone"] = 1
    with pytest.raises(ConfigError, match=f"^plain configuration: {message}$"):
        from_plain(plain)


def test_a_file_that_cannot_be_read_does_not_make_its_names_unknown(write):
    write(a="include 'gone.gin'\nBasket.seed = %SEED\nBasket.first = @medium/Pear()\nPear.weight = 'x'")
    assert [problem.split(": ")[0] for problem in faults(Crate, ["a.gin"])] == ["a.gin:1", "a.gin:4"]


def test_macros_set_to_themselves_are_found(write):
    write(a="A = %B\nB = [%A]\nPear.pips = %A")
    assert all("is set to itself" in problem for problem in faults(Basket, ["a.gin"]))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(alphabet=st.sampled_from("Pear.weight=@%(){}[]:,'\"\n #/\\\t10-_\0é"), max_size=40))
@example("Pear.weight = " + "[" * 2000)
@example("Pear:\n  weight = 1\n bites = 2")
@example("Pear.weight = " + "9" * 5000)
@example("Pear.weight = 1" + "0" * 400)
def test_no_text_leads_to_anything_but_a_config_error(text):
    try:
        load(Basket, [], [text])
    except ConfigError as error:
        assert error.problems
        assert all(problem.startswith("--set ") for problem in error.problems)


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["@Pear()", "@Knife", "%X", "1e3", "'a'"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(st.just("k") | st.integers(), inner)
    ),
    max_leaves=4,
)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([*attrs.fields_dict(Pear), *attrs.fields_dict(Basket)]), values)
def test_any_value_is_either_a_config_error_or_of_the_type_of_the_field(name, value):
    cls = Pear if name in attrs.fields_dict(Pear) else Basket
    try:
        basket = load(Basket, [], [f"{cls.__name__}.{name} = {value!r}".replace('"', "")]).value
    except ConfigError as error:
        assert len(error.problems) == 1 or "X" in str(error)
    else:
        assert from_plain(json.loads(json.dumps(to_plain(basket)))) == basket


def test_config_errors_pickle_and_print_one_problem_a_line():
    error = pickle.loads(pickle.dumps(ConfigError(["a", "b"])))
    assert error.problems == ["a", "b"] and str(error) == "a\nb"


# --- round trips ---------------------------------------------------------------------------------------------

finite = st.floats(allow_nan=False, allow_infinity=False)
text = st.text(max_size=8)
pears = st.builds(
    Pear,
    weight=st.floats(0, 1, exclude_min=True),
    pips=st.none() | st.integers(2, 100),
    ripe=st.booleans(),
    name=text | st.sampled_from(["medium", "expert"]),
    colour=st.sampled_from(["green", "yellow", "mask_tokens"]),
    origin=st.none() | st.sampled_from([Path("a/b"), Path("/tmp/x y"), Path("it's")]),
    spots=st.lists(st.integers(0), max_size=3),
    prices=st.dictionaries(text, finite, max_size=2),
    size=st.tuples(finite, st.integers()),
    limit=st.floats(allow_nan=False),
    grade=st.sampled_from("ab"),
    bites=st.integers(-4, 4).map(lambda half: 2 * half),
)
fruits = st.recursive(pears, lambda inner: st.builds(Plum, stone=st.integers(), inner=st.none() | inner), max_leaves=3)
baskets = st.builds(
    Basket,
    first=fruits,
    rest=st.lists(fruits, max_size=3),
    tool=st.builds(Knife, length=st.floats(0, 50, exclude_max=True)),
    by_name=st.dictionaries(text.filter(lambda key: key not in ("component", "fields")), fruits, max_size=2),
    seed=st.integers(),
)


@settings(max_examples=60, deadline=None)
@given(baskets)
def test_dump_loads_to_an_equal_object(basket):
    again = load(Basket, [], [dump(basket)])
    assert again.value == basket
    assert dump(again.value) == again.resolved == dump(basket)


@settings(max_examples=60, deadline=None)
@given(baskets)
def test_plain_data_goes_through_json_to_an_equal_object(basket):
    plain = to_plain(basket)
    again = from_plain(json.loads(json.dumps(plain)))
    assert again == basket
    assert to_plain(again) == plain and fingerprint(to_plain(again)) == fingerprint(plain)
    assert all(isinstance(value, bool | int | float | str | None) for value in flatten(basket).values())


@given(baskets, baskets)
@settings(max_examples=30, deadline=None)
def test_fingerprints_tell_different_configurations_apart(one, other):
    assert (fingerprint(to_plain(one)) == fingerprint(to_plain(other))) == (one == other)
    assert len(fingerprint(to_plain(one))) == 16


def test_a_fingerprint_does_not_depend_on_the_order_of_keys():
    assert fingerprint({"a": 1, "b": [2.0]}) == fingerprint({"b": [2.0], "a": 1}) != fingerprint({"a": 1, "b": [2]})


def test_dump_scopes_a_class_with_several_values_by_its_names():
    pears = (Pear(name="medium"), Pear(name="expert", pips=3))
    lines = dump(Basket(first=pears[0], rest=pears)).splitlines()
    assert "Basket.first = @medium/Pear()" in lines
    assert "Basket.rest = (@medium/Pear(), @expert/Pear())" in lines
    assert "expert/Pear.pips = 3" in lines and "# Pear: A fruit with every type of field." in lines
    assert "@pear_2/Pear()" in dump(Basket(rest=(Pear(name="no name"),)))


def test_dump_refuses_nan_which_gin_cannot_say():
    with pytest.raises(ValueError, match="NaN"):
        dump(Pear(limit=math.nan))


def test_flatten_gives_dotted_scalars():
    flat = flatten(Basket(first=Plum(stone=1), rest=(Pear(spots=(1, 2), prices={"eur": 2.0}),)))
    assert flat["first"] == "Plum" and flat["first.stone"] == 1 and flat["first.inner"] is None
    assert flat["rest.0.spots"] == "[1, 2]" and flat["rest.0.prices.eur"] == 2.0 and flat["tool.length"] == 12.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"component": "Paer"},
            "plain configuration: Paer is not a registered component; did you mean Pear?; import the module of one of "
            "your own first (--import MODULE)",
        ),
        ({"fields": {"wieght": 1.0}}, "plain configuration: Pear.wieght is not a field of Pear; did you mean weight?"),
        (
            {"fields": {"weight": 2.0}},
            "plain configuration: Pear.weight must be a float above 0 and at most 1; found 2.0",
        ),
        (
            {"fields": {"bites": 3}},
            "plain configuration: Pear.bites must be an int; found 3 (bites must be even, not 3)",
        ),
        ({"component": "Plum"}, "plain configuration: Plum.stone is not set; it must be an int"),
        (
            {"fields": []},
            "plain configuration: expected a dict of 'component' and 'fields'; found "
            "{'component': 'Pear', 'fields': []}",
        ),
        (
            {"component": "Plum", "fields": {"stone": 1, "inner": {"component": "Knife", "fields": {"length": "x"}}}},
            "plain configuration at inner: Knife.length must be a float at least 0 and below 50; found 'x'\n"
            "plain configuration: Plum.inner must be a test_fruit (one of @Pear(), @Plum()), or None; found @Knife(), "
            "which is an ax_test_tool",
        ),
    ],
)
def test_bad_plain_data_is_a_config_error(change, message):
    with pytest.raises(ConfigError) as caught:
        from_plain({"component": "Pear", "fields": {}} | change)
    assert str(caught.value) == message


@pytest.mark.parametrize("junk", [None, 3, [], {}, {"component": "Pear"}])
def test_plain_data_of_another_shape_is_a_config_error(junk):
    with pytest.raises(ConfigError, match="expected a dict of 'component' and 'fields'"):
        from_plain(junk)


def test_what_is_not_a_registered_component_is_refused():
    with pytest.raises(TypeError, match="Fruit is not a registered component"):
        load(Fruit, [])
