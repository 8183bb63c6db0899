"""Pulling a version into the folder that a trainer reads.

Each format is one module with one function, `items(chosen) -> Iterator[Item]`: files that are copied or
linked from media/, and files that are written. `transfer` brings them to their place.
"""
