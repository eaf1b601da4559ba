"""The controller: makes Kubernetes run what IndexServings and IndexBuilds ask for."""
