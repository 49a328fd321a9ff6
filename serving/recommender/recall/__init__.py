"""Recall: from every item to some hundreds. Each channel is one module; `blending` joins what they found.

popular    what most people rate
embedding  near what the user liked lately, a channel for each kind of embedding
blending   union in proportion to quotas, with the names of the channels that found each item
"""
