"""Training data: records, shards and the generators that draw them.

Boundary: nothing here imports torch.
"""
