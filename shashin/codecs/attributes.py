"""Converts a listing's attributes from and to their message."""

from __future__ import annotations

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
    message = events_pb2.Attributes()
    put_attributes(message, attributes)
    return message


def put_attributes(
    message: events_pb2.Attributes, attributes: tuple[str, str, int, str, int]
) -> None:
    """Fill a message field by field, which takes two thirds of what keywords take.

    ``attributes`` are ``RowAttributes``, or the same without names.
    """
    message.category, message.brand, message.price_minor, message.currency, listed_at = attributes
    if listed_at != NO_TIME:
        message.listed_at.seconds = listed_at
