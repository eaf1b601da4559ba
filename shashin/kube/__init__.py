"""The Kubernetes API: a client of plain dicts, a reflector and leader election.

The only package that imports ``kubernetes``, of which it uses the credentials and the HTTP session:
objects are plain dicts, so that nothing of the API's thousands of model classes is imported.
"""
