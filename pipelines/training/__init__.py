"""The training set: its rows, its splits by time, and the parameters fitted on its train rows.

labels      events → label rows in canonical order
splits      where train ends and valid ends, in time
files       row groups of a fixed size, and a checksum of their content
transforms  vocabularies, means and standard deviations
identity    which inputs make two training sets the same
"""
