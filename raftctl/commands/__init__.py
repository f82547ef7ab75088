"""The words of the command line, one module per command group, each imported only when its command runs."""
