"""`check` recomputes random entries; it sees damaged files and the weights of another network."""

import logging
import re

import pytest
import torch
from safetensors.torch import load_file, save_file

from tskd.errors import TskdError
from tskd.networks import build_sam


def test_what_was_written_passes_and_the_largest_difference_is_told(write, caplog):
    write()
    caplog.set_level(logging.INFO)
    assert write(check=3, batch_size=1) == 3
    found = re.search(r"3 random entries recomputed: largest difference ([\d.e-]+) of the largest value", caplog.text)
    assert found
    assert float(found[1]) < 0.005  # half precision, and batches of another size
    assert write(check=20) == 5  # no more than there are


def test_bfloat16_stays_within_the_tolerance(write):
    write(dtype="bfloat16")
    assert write(dtype="bfloat16", check=5, batch_size=1) == 5


def truncate(path):
    path.write_bytes(path.read_bytes()[:500])


def change_a_value(path):
    arrays = load_file(path)
    arrays["logits"][0, 3, 3] += 0.2 * arrays["logits"].abs().max()
    save_file(arrays, path)


def make_nan(path):
    arrays = load_file(path)
    arrays["embedding"][0, 0, 0] = torch.nan
    save_file(arrays, path)


def lose_the_embedding(path):
    save_file({"logits": load_file(path)["logits"]}, path)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (truncate, "case_2: cannot be read"),
        (change_a_value, r"case_2: differs by 0\.2"),
        (make_nan, "case_2: differs by nan"),
        (lose_the_embedding, "case_2: differs by inf"),
    ],
)
def test_a_damaged_file_is_named(harm, message, write, tmp_path):
    write()
    harm(tmp_path / "soft" / "case_2.safetensors")
    with pytest.raises(TskdError, match=message) as caught:
        write(check=5)
    assert "found 1 others among 5 random entries" in str(caught.value)


def test_other_weights_are_noticed(write):
    """As where a file was replaced under the same name: the hash agrees, what the network says does not."""
    write()
    torch.manual_seed(1)
    with pytest.raises(TskdError, match="found 5 others among 5 random entries"):
        write(network=build_sam("mobile_sam", 3, 64), check=5)
