"""Documents of ``shashin.dev``: custom resources on Kubernetes, files anywhere else."""
