"""The loss in pieces is the loss."""

import torch
import torch.nn.functional as F
from torch import nn

from handlens.train.losses import next_word_loss


def test_pieces_change_neither_loss_nor_slopes():
    draw = torch.Generator().manual_seed(0)
    head = nn.Linear(8, 50, bias=False)
    hidden = torch.randn(13, 8, generator=draw)
    targets = torch.randint(0, 50, (13,), generator=draw)
    results = []
    for piece in (10**6, 150):  # all at once; three rows at a time
        some = hidden.clone().requires_grad_()
        head.weight.grad = None
        loss, hits = next_word_loss(head, some, targets, piece=piece)
        loss.backward()
        results.append((loss.detach(), hits, some.grad, head.weight.grad.clone()))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    wanted = F.linear_cross_entropy(hidden, head.weight.detach(), targets, reduction="sum")
    torch.testing.assert_close(results[1][0], wanted, rtol=1e-5, atol=1e-5)
    assert torch.equal(results[1][1], head(hidden).argmax(-1) == targets)
