"""Bundles start in any directory, also beside modules of the user's own with everyday names."""

from pathlib import Path

from tests import bare
from tests.bundles.conftest import BUNDLES

START = """
import sys
from monai.bundle import ConfigWorkflow

for bundle in sys.argv[2:]:
    root = f"{sys.argv[1]}/{bundle}"
    flow = ConfigWorkflow(
        f"{root}/configs/train.json", workflow_type="train", logging_file=False, bundle_root=root,
        dataset_dir="nowhere", image_size=64,
    )
    try:
        flow.initialize()
        flow.parser.get_parsed_content("train#dataset")
    except Exception as error:
        while error.__cause__ is not None:
            error = error.__cause__
        print(bundle, error)
"""


def test_modules_of_the_users_own_do_not_get_in_the_way(tmp_path: Path) -> None:
    for name in ("common.py", "data.py", "common/__init__.py", "networks.py", "losses.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("raise SystemExit('the wrong module')\n")
    (tmp_path / "start.py").write_text(START)
    bundles = sorted(path.name for path in BUNDLES.iterdir() if (path / "configs/train.json").is_file())
    done = bare.run(["start", str(BUNDLES), *bundles], tmp_path, project=True)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.splitlines()
    assert len(bundles) == 3
    for bundle in bundles:
        assert [line for line in lines if line.startswith(f"{bundle} nowhere/dataset.json: expected a dataset.json")]
