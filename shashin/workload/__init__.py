"""Driving a running system with listings and accounting for every event; demo, bench and tests share it."""
