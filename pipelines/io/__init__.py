"""Where the data plane meets files and engines."""
