"""Whether what clients saw of a cluster can be explained by one order of their operations, each taking effect once."""
