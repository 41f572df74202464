"""A killed run continues as if nothing had happened; a checkpoint of another run is refused."""

import resource
from pathlib import Path

import pytest
import torch
from ignite.engine import Engine, Events
from torch import nn

from tests import forked
from tskd import ranks
from tskd.errors import TskdError
from tskd.handlers import Checkpointing
from tskd.state import read_tensors, save_tensors

FILE = "checkpoints/last.pt"


@pytest.mark.parametrize("epoch", [1, 3])
def test_resumed_run_equals_an_uninterrupted_one(epoch, training, tmp_path):
    whole = training(tmp_path / "whole").go()
    first = training(tmp_path / "parts", kill_after=epoch).go()
    second = training(tmp_path / "parts").go()
    assert len(whole.losses) == 12
    assert len(first.losses) == 3 * epoch
    assert first.losses + second.losses == whole.losses
    assert first.order + second.order == whole.order
    for name, value in whole.network.state_dict().items():
        assert torch.equal(second.network.state_dict()[name], value), name
    assert second.trainer.state.iteration == whole.trainer.state.iteration == 12


def test_killed_in_the_middle_of_an_epoch_repeats_that_epoch(training, tmp_path):
    whole = training(tmp_path / "whole").go()
    run = training(tmp_path / "parts")
    run.trainer.add_event_handler(Events.ITERATION_COMPLETED(once=8), run._kill)
    first, second = run.go(), training(tmp_path / "parts").go()
    assert first.losses == whole.losses[:8]
    assert second.losses == whole.losses[6:]


def test_more_epochs_continue_a_finished_run(training, tmp_path):
    whole = training(tmp_path / "whole", max_epochs=5).go()
    training(tmp_path / "parts", max_epochs=3).go()
    assert training(tmp_path / "parts", max_epochs=5).go().losses == whole.losses[9:]


def test_a_finished_run_does_nothing_more(training, tmp_path):
    first = training(tmp_path).go()
    second = training(tmp_path).go()
    assert second.losses == []
    assert all(torch.equal(a, b) for a, b in zip(first.network.parameters(), second.network.parameters(), strict=True))


def test_never_starts_anew_and_a_path_continues_from_there(training, tmp_path):
    whole = training(tmp_path / "one", kill_after=2).go()
    assert training(tmp_path / "one", max_epochs=2, resume="never").go().losses == whole.losses
    other = training(tmp_path / "two", max_epochs=3, resume=str(tmp_path / "one" / FILE)).go()
    assert other.losses == training(tmp_path / "three").go().losses[6:9]
    assert (tmp_path / "two" / FILE).is_file()


def test_fingerprints_must_agree(training, tmp_path):
    prints = {"dataset": "123", "soft_labels": "abc", "weights": None}
    training(tmp_path, fingerprints=prints, kill_after=1).go()
    with pytest.raises(TskdError) as caught:
        training(tmp_path, fingerprints={**prints, "dataset": "456", "soft_labels": "def"}).go()
    message = str(caught.value)
    assert "dataset: this run has 456, the checkpoint 123" in message
    assert "soft_labels: this run has def, the checkpoint abc" in message
    assert "weights" not in message
    assert "set resume to never" in message
    assert len(training(tmp_path, fingerprints=prints).go().losses) == 9
    with pytest.raises(TskdError, match="transfer: this run has 80, the checkpoint None"):
        training(tmp_path, fingerprints={**prints, "transfer": 80}).go()


def test_batches_of_one_update_must_agree(training, tmp_path):
    """However many processes and batches they are shared out to."""
    training(tmp_path, kill_after=1).go()
    run = training(tmp_path)
    run.trainer.accumulation_steps = 2
    with pytest.raises(TskdError, match="effective_batch_size: this run has 4, the checkpoint 2"):
        run.go()


def test_an_older_checkpoint_is_compared_where_it_says_something(training, tmp_path):
    """Its identity was a list of its own; what this version binds besides was not written."""
    training(tmp_path, kill_after=1).go()
    content = read_tensors(tmp_path / FILE)
    del content["identity_version"]
    content["identity"] = {"loss": "MSELoss()", "images_an_update": "2", "dataset": "123"}
    save_tensors(content, tmp_path / FILE)
    training(tmp_path, fingerprints={"dataset": "123", "transfer": "abc"}, kill_after=2).go()
    save_tensors(content, tmp_path / FILE)
    with pytest.raises(TskdError, match=r"run; dataset: this run has 456, the checkpoint 123\. Choose"):
        training(tmp_path, fingerprints={"dataset": "456"}).go()
    assert len(training(tmp_path, fingerprints={"dataset": "456"}, may_differ=["dataset"]).go().losses) == 9


def test_a_refused_checkpoint_is_not_overwritten(training, tmp_path):
    training(tmp_path, kill_after=1, fingerprints={"seed": 0}).go()
    before = (tmp_path / FILE).read_bytes()
    with pytest.raises(TskdError):
        training(tmp_path, fingerprints={"seed": 1}).go()
    assert (tmp_path / FILE).read_bytes() == before


def test_what_only_the_checkpoint_was_bound_to_is_named(training, tmp_path):
    training(tmp_path, kill_after=1, fingerprints={"seed": 0, "fold": 1}).go()
    with pytest.raises(TskdError, match="fold: this run has None, the checkpoint 1"):
        training(tmp_path, fingerprints={"seed": 0}).go()


def test_what_may_differ_by_now_may_differ_from_an_earlier_checkpoint(training, tmp_path):
    training(tmp_path, kill_after=1, fingerprints={"seed": 0, "train#dataloader#drop_last": True}).go()
    assert len(training(tmp_path, fingerprints={"seed": 0}).go().losses) == 9


def test_a_renamed_setting_of_an_older_checkpoint_is_compared(training, tmp_path):
    training(tmp_path, kill_after=1, fingerprints={"surest_synthetic": 250}).go()
    with pytest.raises(TskdError, match="max_confident_synthetic: this run has 100, the checkpoint 250"):
        training(tmp_path, fingerprints={"max_confident_synthetic": 100}).go()
    training(tmp_path, fingerprints={"max_confident_synthetic": 250}).go()


def test_other_parameters_are_named(training, tmp_path):
    training(tmp_path, kill_after=1).go()
    with pytest.raises(TskdError, match=r"(?s)`network` does not fit this configuration: .*0\.weight"):
        training(tmp_path, width=5).go()
    renamed = nn.ModuleDict({"first": nn.Linear(4, 4), "second": nn.Linear(4, 1)})
    with pytest.raises(TskdError, match=r"(?s)`network` does not fit .*first\.weight"):
        training(tmp_path, network=renamed).go()
    with pytest.raises(TskdError, match="`ema` is not in the checkpoint"):
        training(tmp_path, extra={"ema": nn.Linear(1, 1)}).go()


def test_fewer_epochs_than_done(training, tmp_path):
    training(tmp_path, max_epochs=3).go()
    with pytest.raises(TskdError, match="already run 3 epochs, expected at most max_epochs = 2"):
        training(tmp_path, max_epochs=2).go()


@pytest.mark.parametrize("content", [b"", b"something else", None])
def test_unreadable_checkpoint(content, training, tmp_path):
    training(tmp_path, kill_after=1).go()
    path = tmp_path / FILE
    path.write_bytes(path.read_bytes()[:500] if content is None else content)
    with pytest.raises(TskdError, match=f"{FILE}: expected a file of tensors"):
        training(tmp_path).go()


def test_missing_or_foreign_file_given_as_resume(training, tmp_path):
    with pytest.raises(TskdError, match=r"none.pt: expected a file of tensors"):
        training(tmp_path, resume=str(tmp_path / "none.pt")).go()
    torch.save(nn.Linear(1, 1).state_dict(), tmp_path / "model.pt")
    with pytest.raises(TskdError, match=r"model.pt: expected a checkpoint .*found another file"):
        training(tmp_path, resume=str(tmp_path / "model.pt")).go()


def test_full_disk_keeps_the_last_checkpoint(training, tmp_path):
    training(tmp_path, kill_after=1).go()
    before = (tmp_path / FILE).read_bytes()
    run = training(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # no file above 1000 bytes, as on a full disk
        with pytest.raises(TskdError, match=f"{FILE}: cannot write it"):
            run.go()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / FILE).read_bytes() == before
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["last.pt"]
    assert len(training(tmp_path).go().losses) == 9


def test_unwritable_folder(training, tmp_path):
    (tmp_path / "run").write_text("a file where the folder should be")
    with pytest.raises(TskdError, match=r"run: expected a folder to write to, found a file"):
        training(tmp_path / "run").go()


def run_twice_in_a_group(folder: str) -> None:
    def run(epochs: int) -> None:
        engine = Engine(lambda *_: None)
        Checkpointing(own, {"network": torch.nn.Linear(1, 1)}).attach(engine)
        engine.run([0], max_epochs=epochs)

    torch.distributed.init_process_group("gloo")
    own = Path(folder) / str(ranks.rank())  # a disk that the processes do not share
    run(1)
    try:
        run(2)
    except TskdError as error:
        print("refused:", error)
    torch.distributed.destroy_process_group()


@pytest.mark.process
def test_processes_that_would_continue_after_different_epochs_are_refused(tmp_path):
    done = forked.run(run_twice_in_a_group, tmp_path, processes=2)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("expected all processes to continue after the same epoch, found [0, 1]") == 2


def test_names_are_those_of_the_bare_network(tmp_path):
    """The checkpoint of several processes continues on one, and the other way round."""

    class Parallel(nn.parallel.DistributedDataParallel):
        def __init__(self, module: nn.Module) -> None:
            nn.Module.__init__(self)
            self.module = module

    network, engine = nn.Linear(2, 2), type("Engine", (), {})()
    engine.state = type("State", (), {"epoch": 1, "iteration": 1})()
    Checkpointing(tmp_path, {"network": Parallel(network)})(engine)
    state = torch.load(tmp_path / FILE, weights_only=True)
    assert state["network"].keys() == network.state_dict().keys()
