"""Records of vectors.embedded, as an embedder would write them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from shashin.codecs.attributes import attributes_message
from shashin.kafka.producer import OutRecord
from shashin.kafka.topics import VECTORS_EMBEDDED
from shashin.model_space import ModelSpace
from shashin.shards.format.row import NO_TIME, RowAttributes
from shashin.v1 import events_pb2


def vector_record(
    space: ModelSpace, listing_id: str, vector: npt.NDArray[np.floating]
) -> OutRecord:
    """Return the record of a new listing with one photo, whose vector is (dimensions,)."""
    message = events_pb2.EmbeddedListing(
        listing_id=listing_id,
        version=1,
        kind=events_pb2.LISTING_KIND_LISTED,
        model_id=space.model_id,
        dimensions=space.dimensions,
        attributes=attributes_message(RowAttributes("bench", "", 0, "", NO_TIME)),
        vectors=[events_pb2.PhotoVector(vector=vector.astype("<f2").tobytes())],
    )
    return OutRecord(VECTORS_EMBEDDED, listing_id.encode(), message.SerializeToString())
