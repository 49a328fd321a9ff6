"""What is fitted on likes: simple lists, and the channels of recall that are such lists, as dated tables."""
