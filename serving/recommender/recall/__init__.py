"""Recall: from every item to some hundreds. Each channel is one module; `blending` joins what they found.

asking     every channel, about one user
fitted     what the user's likes tell (EASE, ItemCF), and what most liked of late, by tables that the data plane fits
attributes what rises, what is new, what has the terms that the user likes
popular    what most people rate
embedding  near what the user liked lately, a channel for each kind of embedding
circle     what others whom the user follows liked last, where the data says who follows whom
blending   union in proportion to quotas, with the names of the channels that found each item
"""
