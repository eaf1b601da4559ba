"""``make cluster-test``: the whole system on a real cluster, while things go wrong."""
