"""Container images in registries: references, the registry's protocol, layers, appending to an image.

The protocol is https://github.com/opencontainers/distribution-spec, the formats are those of
https://github.com/opencontainers/image-spec and Docker's schema 2. Nothing else speaks them.
"""
