"""The pipeline, one package per service; services interact only through topics, the repository and gRPC."""

import shashin

assert shashin.__doc__, "imported before gRPC, for which it makes settings"
