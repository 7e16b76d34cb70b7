"""Configuration as code: the typed registry over gin and attrs, and gin text to one checked, frozen, plain object."""

from spinrl.config.extensions import (
    import_again,
    import_components,
    imported_components,
    place_in_components,
)
from spinrl.config.gin_text import add_search_path
from spinrl.config.listing import format_registry
from spinrl.config.load import Resolved, load
from spinrl.config.registry import Component, ConfigError, did_you_mean, register
from spinrl.config.serialize import components_in, dump, fingerprint, flatten, from_plain, to_plain

__all__ = [
    "Component",
    "ConfigError",
    "Resolved",
    "add_search_path",
    "components_in",
    "did_you_mean",
    "dump",
    "fingerprint",
    "flatten",
    "format_registry",
    "from_plain",
    "import_again",
    "import_components",
    "imported_components",
    "load",
    "place_in_components",
    "register",
    "to_plain",
]
