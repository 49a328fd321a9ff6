"""Made-up event logs of any size that are hard in the ways in which real ones are.

scale       how large a log is, and the laws that it follows
seasons     when things happen: hours, weekdays, months
catalogue   items with genres, and how popular each is when
people      users with attributes, tastes and activity
events      who did what when, block by block
files       a log in a published layout
"""
