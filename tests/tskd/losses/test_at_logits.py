"""The loss at the decoder's resolution sees labels, not mixtures of them."""

import torch

from tskd.losses import AtLogits, DiceCELoss

BLOCKS = torch.tensor([[0, 1, 2], [2, 255, 0]], dtype=torch.uint8)[None, None]  # B1hw


def test_blocks_of_one_label_keep_it():
    logits = torch.randn(1, 3, 2, 3, generator=torch.Generator().manual_seed(0))
    fine = BLOCKS.repeat_interleave(4, 2).repeat_interleave(4, 3)
    assert torch.equal(AtLogits(DiceCELoss())(logits, fine), DiceCELoss()(logits, BLOCKS))


def test_only_labels_that_are_there_are_seen():
    seen = []

    class Look(torch.nn.Module):
        def forward(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
            seen.append(label)
            return logits.sum()

    label = torch.randint(0, 3, (2, 1, 30, 22), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)) * 100
    AtLogits(Look())(torch.zeros(2, 3, 7, 5), label)
    assert seen[0].shape == (2, 1, 7, 5)
    assert seen[0].dtype == torch.uint8
    assert set(seen[0].unique().tolist()) <= {0, 100, 200}
