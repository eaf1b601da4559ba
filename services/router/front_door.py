"""SearchService behind the gate: what of a gRPC call the gate decides by."""

from __future__ import annotations

from collections.abc import Callable

from services.router.costs import cost_of_locate, cost_of_search
from services.router.gate import Gate
from services.router.handlers import Context, SearchHandlers
from shashin.access.keyring import key_in
from shashin.errors import ShashinError
from shashin.rpc.server_call import ServerCall
from shashin.v1 import search_pb2, search_pb2_grpc

_SERVICE = "/shashin.v1.SearchService/"
_STATUS = _SERVICE + "Status"


class FrontDoor(search_pb2_grpc.SearchServiceServicer):
    """Lets in the calls that the gate admits."""

    def __init__(
        self, handlers: SearchHandlers, gate: Gate, photo_vectors: Callable[[], int]
    ) -> None:
        """``photo_vectors`` tells how many vectors a query photo without a crop has now."""
        self._handlers = handlers
        self._gate = gate
        self._photo_vectors = photo_vectors

    def guard(self, method: str, call: ServerCall) -> ShashinError | None:
        """Return why a call is refused before its request is received; None if it is not.

        Health and reflection are for everybody. Status tells operators what is wrong, so it is never shed.
        """
        if not method.startswith(_SERVICE):
            return None
        try:
            self._gate.check(lambda: key_in(call.invocation_metadata()), sheds=method != _STATUS)
        except ShashinError as error:
            return error
        if method != _STATUS:
            call.ended = self._gate.arrived()
        return None

    async def Search(  # noqa: N802
        self, request: search_pb2.SearchRequest, context: Context
    ) -> search_pb2.SearchResponse:
        """Search, if the query is admitted."""
        kind = request.WhichOneof("query") or "parts"
        left = context.time_remaining()
        cost = cost_of_search(request, self._photo_vectors())
        with self._gate.admitted(kind, cost, left):
            return await self._handlers.Search(request, context)

    async def Locate(  # noqa: N802
        self, request: search_pb2.LocateRequest, context: Context
    ) -> search_pb2.LocateResponse:
        """Locate listings, if the call is admitted."""
        left = context.time_remaining()
        with self._gate.admitted("locate", cost_of_locate(request), left):
            return await self._handlers.Locate(request, context)

    async def Status(  # noqa: N802
        self, request: search_pb2.StatusRequest, context: Context
    ) -> search_pb2.StatusResponse:
        """Return the status."""
        return await self._handlers.Status(request, context)
