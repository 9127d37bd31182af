"""One module per command of the command line; each has `add_parser` and `run`."""
