"""The tutorial's commands, run as they stand there, with the output that it shows."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests import forked

ROOT = Path(__file__).resolve().parents[2]
# random weights in place of the published ones, which the tests do not download
TEACHER = ("--vfm mobile_sam", "--vfm mobile_sam --pretrained @network_def")


@pytest.mark.process
def test_the_tutorials_commands_run(tmp_path: Path) -> None:
    """Every command ends well, in order, and prints the lines of the block `output` below it."""
    text = (ROOT / "docs/tutorial.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```(bash|output)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert [kind for kind, _ in blocks].count("bash") >= 6
    (tmp_path / "bin").mkdir()
    variables = {**os.environ, "OMP_NUM_THREADS": "1", **forked.commands(tmp_path / "bin")}
    printed = ""
    for kind, block in blocks:
        block = block.replace(*TEACHER).replace("tutorial/", f"{tmp_path}/")
        if kind == "output":
            assert not [line for line in block.splitlines() if line not in printed], printed
            continue
        run = subprocess.run(["bash", "-ec", block], cwd=ROOT, env=variables, capture_output=True, text=True)
        assert run.returncode == 0, f"{block}\n{run.stdout[-3000:]}\n{run.stderr[-3000:]}"
        printed = run.stdout
    assert (tmp_path / "report/report.html").is_file()
    assert list((tmp_path / "masks").rglob("*.nii.gz"))
