"""Offset arithmetic: ranges, bucket cuts and coverage. Pure."""
