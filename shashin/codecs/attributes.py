"""Converts a listing's attributes from and to their message."""

from __future__ import annotations

from typing import Any

from shashin.shards.format.row import NO_TIME, RowAttributes
from shashin.v1 import events_pb2


def attributes_of(message: events_pb2.Attributes) -> RowAttributes:
    """Return a row's attributes."""
    return RowAttributes(
        category=message.category,
        brand=message.brand,
        price_minor=message.price_minor,
        currency=message.currency,
        listed_at=message.listed_at.seconds if message.HasField("listed_at") else NO_TIME,
    )


def attributes_message(attributes: RowAttributes) -> events_pb2.Attributes:
    """Return the message of a row's attributes."""
    return _made(events_pb2.Attributes, attributes)


def add_attributes(messages: Any, attributes: RowAttributes) -> None:
    """Add the message of a row's attributes to a repeated field: made there, it is not copied into it."""
    _made(messages.add, attributes)


def _made(make: Any, attributes: RowAttributes) -> events_pb2.Attributes:
    message: events_pb2.Attributes = make(
        category=attributes.category,
        brand=attributes.brand,
        price_minor=attributes.price_minor,
        currency=attributes.currency,
    )
    if attributes.listed_at != NO_TIME:
        message.listed_at.seconds = attributes.listed_at
    return message
