"""The loss in pieces is the loss."""

import torch
import torch.nn.functional as F
from torch import nn

from handlens.train.learner import evenly
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


def test_weights_scale_each_place_whole_or_in_pieces():
    draw = torch.Generator().manual_seed(0)
    head = nn.Linear(8, 50, bias=False)
    hidden, targets = torch.randn(7, 8, generator=draw), torch.randint(0, 50, (7,), generator=draw)
    weights = torch.tensor([0.0, 2.0, 1.0, 1.0, 0.5, 3.0, 1.0])
    wanted = (F.cross_entropy(head(hidden), targets, reduction="none") * weights).sum()
    for piece in (10**6, 150):
        torch.testing.assert_close(next_word_loss(head, hidden, targets, weights, piece=piece)[0], wanted)


def test_an_answer_counts_by_the_root_of_its_length():
    owners = torch.tensor([0] * 16 + [1] + [2] * 4)
    weights = evenly(owners, 3)
    torch.testing.assert_close(weights.mean(), torch.tensor(1.0))
    totals = [float(weights[owners == answer].sum()) for answer in range(3)]
    assert [round(total / totals[1], 4) for total in totals] == [4.0, 1.0, 2.0]
