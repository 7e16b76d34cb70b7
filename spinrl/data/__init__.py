"""Datasets: the on-disk store, tier recipes, collection by rolling out behaviour policies, and the replay loader."""

from spinrl.cache import BuildOptions, Progress, get_or_build, home, locked
from spinrl.data.clinic import ClinicRecords
from spinrl.data.collect.processes import CollectionError, collect_episodes
from spinrl.data.collect.rollout import Rollout, Source, roll_out
from spinrl.data.collect.tiers import Tier, cached_tier, cached_transitions, combine, rollouts, source_store, tier_store
from spinrl.data.features import RowFeatures, features_bytes, features_path, row_features
from spinrl.data.holdout import HoldingOut
from spinrl.data.importers.recipes import Imported, Published, imported_folder, store_folder
from spinrl.data.loader import ReplayLoader, StoreStorage
from spinrl.data.recipe import DatasetPlan, Recipe
from spinrl.data.standardizer import standard_units, standardize
from spinrl.data.store.metadata import SourceRecord, StoreError, StoreMetadata, store_bytes
from spinrl.data.store.store import Episode, Store
from spinrl.data.store.writer import StoreWriter

__all__ = [
    "BuildOptions",
    "ClinicRecords",
    "CollectionError",
    "DatasetPlan",
    "Episode",
    "HoldingOut",
    "Imported",
    "Progress",
    "Published",
    "Recipe",
    "ReplayLoader",
    "Rollout",
    "RowFeatures",
    "Source",
    "SourceRecord",
    "Store",
    "StoreError",
    "StoreMetadata",
    "StoreStorage",
    "StoreWriter",
    "Tier",
    "cached_tier",
    "cached_transitions",
    "collect_episodes",
    "combine",
    "features_bytes",
    "features_path",
    "get_or_build",
    "home",
    "imported_folder",
    "locked",
    "roll_out",
    "rollouts",
    "row_features",
    "source_store",
    "standard_units",
    "standardize",
    "store_bytes",
    "store_folder",
    "tier_store",
]
