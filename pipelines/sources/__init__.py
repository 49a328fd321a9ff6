"""Where raw data comes from: the published layouts of MovieLens, and whatever a mapping describes."""
