"""What ships after a training without validation."""

from ignite.engine import Engine

from common.pretraining import ExportLast


def test_exports_once_after_the_last_step():
    steps, exported = [], []
    trainer = Engine(lambda engine, batch: steps.append(batch))
    ExportLast(lambda: exported.append(len(steps))).attach(trainer)
    trainer.run([1, 2, 3], max_epochs=2)
    assert exported == [6]
