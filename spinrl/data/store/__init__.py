"""The on-disk format of datasets: reading, writing, checking."""
