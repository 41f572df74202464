"""Momentum contrast on the student's encoder."""

import math

import pytest
import torch
import torch.multiprocessing as multiprocessing
from ignite.engine import Engine

from tskd.errors import TskdError
from tskd.pretraining import ContrastiveLoss, MomentumContrast, MomentumUpdate

SMALL = {"hidden_size": 16, "output_size": 8}
PATCHES = "patch_embedding.patch_embeddings.weight"


def reference(queries: torch.Tensor, keys: torch.Tensor, temperature: float) -> float:
    """Equation 1 of the paper, word for word: one positive, the other images of the batch as negatives."""
    total = 0.0
    for query_view, key_view in ((0, 1), (1, 0)):
        for i, query in enumerate(queries[query_view]):
            cosines = [float(query @ key / query.norm() / key.norm()) for key in keys[key_view]]
            exponents = [math.exp(cosine / temperature) for cosine in cosines]
            total += -math.log(exponents[i] / sum(exponents)) / len(queries[query_view])
    return 2 * temperature * total


def step(network: MomentumContrast, views: torch.Tensor) -> None:
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2)
    ContrastiveLoss()(network(views), views).backward()
    optimizer.step()


@pytest.mark.parametrize("temperature", [0.2, 1.0])
def test_loss_equals_a_plain_reference(temperature):
    torch.manual_seed(0)
    queries, keys = torch.randn(2, 5, 8, dtype=torch.float64), torch.randn(2, 5, 8, dtype=torch.float64)
    loss = ContrastiveLoss(temperature)({"queries": queries, "keys": keys})
    assert loss.dtype == torch.float64
    assert float(loss) == pytest.approx(reference(queries, keys, temperature), rel=1e-12)


def test_loss_is_least_where_views_agree_and_images_differ():
    eye = torch.eye(4).expand(2, 4, 4)
    loss = ContrastiveLoss(0.2)
    collapsed = loss({"queries": torch.ones(2, 4, 4), "keys": torch.ones(2, 4, 4)})
    torch.testing.assert_close(collapsed, torch.tensor(4 * 0.2 * math.log(4)))
    assert loss({"queries": eye, "keys": eye}) < 0.1 * collapsed
    assert loss({"queries": eye, "keys": eye.roll(1, 1)}) > collapsed
    with pytest.raises(TskdError, match="batch_size of 2 or more"):
        loss({"queries": eye[:, :1], "keys": eye[:, :1]})


def test_the_copy_and_the_patch_projection_do_not_learn(student):
    network, views = MomentumContrast(student.vit, **SMALL), torch.rand(8, 1, 32, 48)
    copy = {name: value.clone() for name, value in network.momentum_vit.state_dict().items()}
    patches, block = student.vit.state_dict()[PATCHES].clone(), student.vit.blocks[0].mlp.linear1.weight.clone()
    step(network, views)
    assert torch.equal(student.vit.state_dict()[PATCHES], patches)
    assert not torch.equal(student.vit.blocks[0].mlp.linear1.weight, block)  # the student itself learns
    assert all(torch.equal(value, copy[name]) for name, value in network.momentum_vit.state_dict().items())
    still = [*network.momentum_vit.parameters(), *network.momentum_projector.parameters()]
    assert all(parameter.grad is None for parameter in still)
    assert not [name for name in student.state_dict() if "momentum" in name or "proj" in name.split(".")[0]]


def test_learns_to_tell_images_apart(student):
    torch.manual_seed(0)
    network, loss = MomentumContrast(student.vit, **SMALL), ContrastiveLoss(0.2)
    image = torch.nn.functional.interpolate(torch.rand(8, 1, 2, 3), size=(32, 48), mode="bilinear")
    optimizer = torch.optim.AdamW([parameter for parameter in network.parameters() if parameter.requires_grad], lr=3e-3)
    losses = []
    for _ in range(25):
        views = torch.cat([image + 0.05 * torch.randn_like(image) for _ in range(2)])
        optimizer.zero_grad()
        value = loss(network(views), views)
        value.backward()
        optimizer.step()
        network.update(0.9)
        losses.append(value.item())
    assert min(losses[-3:]) < 0.8 * losses[0]
    assert losses[-1] < 4 * 0.2 * math.log(8) - 0.2  # what a network gives that maps all images to one point


def test_update_is_the_exact_moving_average(student):
    network = MomentumContrast(student.vit, **SMALL)
    step(network, torch.rand(8, 1, 32, 48))
    pairs = [
        *zip(network.momentum_vit.parameters(), network.vit.parameters(), strict=True),
        *zip(network.momentum_projector.parameters(), network.projector.parameters(), strict=True),
    ]
    expected = [0.75 * follower.double() + 0.25 * leader.double() for follower, leader in pairs]
    network.update(0.75)
    for (follower, _), value in zip(pairs, expected, strict=True):
        torch.testing.assert_close(follower.double(), value, rtol=1e-6, atol=1e-7)
    network.update(0.0)
    assert all(torch.equal(follower, leader) for follower, leader in pairs)


def test_momentum_follows_the_published_schedule(student):
    """moco-v3's adjust_moco_momentum, at the end of each step; on a resumed run too, for it asks the engine."""
    network = MomentumContrast(student.vit, **SMALL)
    seen: list[float] = []
    network.update = seen.append  # type: ignore[assignment, method-assign]
    trainer = Engine(lambda engine, batch: None)
    MomentumUpdate(network, momentum=0.9).attach(trainer)
    trainer.run([0] * 4, max_epochs=3)
    steps = [(epoch + i / 4) / 3 for epoch in range(3) for i in range(1, 5)]
    assert seen == pytest.approx([1 - 0.5 * (1 + math.cos(math.pi * t)) * (1 - 0.9) for t in steps])
    assert seen[-1] == 1.0


def test_the_copy_waits_for_accumulated_gradients(student):
    network = MomentumContrast(student.vit, **SMALL)
    seen: list[float] = []
    network.update = seen.append  # type: ignore[assignment, method-assign]
    trainer = Engine(lambda engine, batch: None)
    trainer.accumulation_steps = 2  # type: ignore[attr-defined]
    MomentumUpdate(network).attach(trainer)
    trainer.run([0] * 5, max_epochs=1)
    assert len(seen) == 3


def _gathered(rank: int, store: str, queries: torch.Tensor, keys: torch.Tensor, losses: torch.Tensor) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{store}", rank=rank, world_size=2)
    mine = slice(3 * rank, 3 * rank + 3)
    losses[rank] = ContrastiveLoss(0.2)({"queries": queries[:, mine], "keys": keys[:, mine]})
    torch.distributed.destroy_process_group()


def test_negatives_come_from_all_processes(tmp_path):
    queries, keys, losses = torch.randn(2, 6, 8), torch.randn(2, 6, 8), torch.zeros(2).share_memory_()
    arguments = (str(tmp_path / "store"), queries, keys, losses)
    multiprocessing.start_processes(_gathered, arguments, nprocs=2, start_method="fork")
    torch.testing.assert_close(losses.mean(), ContrastiveLoss(0.2)({"queries": queries, "keys": keys}))
