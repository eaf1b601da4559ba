"""Searches measured: this system and, beside it, the libraries and databases that others use."""

import importlib
from contextlib import suppress

with suppress(ImportError):
    # Before USearch: loaded after it, Faiss crashes where it parses the name of an index.
    importlib.import_module("faiss")
