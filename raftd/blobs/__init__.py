"""Content-addressed bytes on this node: put, get, replication to peers and fetch from them."""
