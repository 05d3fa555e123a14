"""Identification ranks as the definition reads, one loop each: what the fast code is held against."""

from __future__ import annotations

import math


def naive_ranks(embeddings, identities):
    """[(rank_by_id, rank_by_image)] per image; NaN without a second image of the same person."""
    n = len(identities)
    ranks = []
    for i in range(n):
        distance = [math.dist(embeddings[i], embeddings[j]) for j in range(n)]
        mates = [distance[j] for j in range(n) if j != i and identities[j] == identities[i]]
        if not mates:
            ranks.append((math.nan, math.nan))
            continue
        nearest = min(mates)
        limit = nearest + 1e-9  # a tie counts against the probe
        closer = [j for j in range(n) if identities[j] != identities[i] and distance[j] <= limit]
        ranks.append((float(len({identities[j] for j in closer})), float(len(closer))))
    return ranks
