"""Photo sources: one adapter per URI scheme, behind one Protocol (``source.py``)."""
