"""The published layouts of MovieLens, each read into raw lines and raw rows."""
