"""The training set: its rows, its splits by time, and the parameters fitted on its train rows.

rows        the label rows of each kind of training set
labels      events → label rows in canonical order
recalled    candidates of recall and their questions, found and checked
listed      candidates → label rows in canonical order
columns     what the rows have, and what of it models read
splits      where train ends and valid ends, in time
files       row groups of a fixed size, and a checksum of their content
transforms  vocabularies, means and standard deviations
identity    which inputs make two training sets the same
"""
