"""Datasets: the on-disk store, tier recipes, collection by rolling out behaviour policies, and the replay loader."""

from spinrl.data.metadata import SourceRecord, StoreError, StoreMetadata, store_bytes
from spinrl.data.store import Episode, Store
from spinrl.data.writer import StoreWriter

__all__ = ["Episode", "SourceRecord", "Store", "StoreError", "StoreMetadata", "StoreWriter", "store_bytes"]
