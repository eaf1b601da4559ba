"""Index builds: batch runs that make shards, described by IndexBuild documents."""
