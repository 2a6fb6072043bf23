"""Jobs on a Ray cluster: what travels there, and the cluster's job server."""
